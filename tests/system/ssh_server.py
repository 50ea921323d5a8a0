"""An SSH server that runs commands, for tests: `python ssh_server.py ADDRESS FOLDER BIN` takes the keys ``host`` and
``client`` of FOLDER, prints its port, and finds programs in BIN first."""

from __future__ import annotations

import asyncio
import os
import sys

import asyncssh


async def main() -> None:
    address, folder, programs = sys.argv[1:]

    async def serve(process: asyncssh.SSHServerProcess[bytes]) -> None:
        environment = {**os.environ, "PATH": f"{programs}:/usr/bin:/bin"}
        ran = await asyncio.create_subprocess_shell(
            process.command or "false",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        await process.redirect(stdin=ran.stdin, stdout=ran.stdout, stderr=ran.stderr)
        process.exit(await ran.wait())

    server = await asyncssh.listen(
        address,
        0,
        server_host_keys=[f"{folder}/host"],
        authorized_client_keys=f"{folder}/client.pub",
        process_factory=serve,
        encoding=None,
    )
    print(server.get_port(), flush=True)
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())

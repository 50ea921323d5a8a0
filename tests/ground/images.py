"""Images made here, never pulled: the running interpreter with what it needs, as a root file system, and an app."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Callable
from pathlib import Path

import docker

GROUND = Path(__file__).parent
SHOP = GROUND.parents[1] / "examples" / "shop"
SHELL_WORDS = (
    "sh",
    "sleep",
    "cat",
    "ls",
    "dd",
    "echo",
    "wc",
    "kill",
    "env",
    "rm",
    "mkdir",
    "head",
    "tail",
    "grep",
    "true",
    "false",
    "printf",
    "seq",
    "touch",
    "id",
)
LEFT_OUT = (
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "site-packages",
    "dist-packages",
    "config-",
)


def test_app(address: str) -> str:
    files = {"/app/testapp.py": (GROUND / "testapp.py").read_bytes()}
    return _image(address, "nextdeploy-test", files, ['CMD ["/bin/python3","/app/testapp.py"]', "EXPOSE 8000/tcp"])


def shop(address: str) -> str:
    files = {f"/app/{path.name}": path.read_bytes() for path in SHOP.glob("*.py")}
    name = _image(address, "nextdeploy-shop", files, ["WORKDIR /app", 'CMD ["python3","app.py"]', "EXPOSE 8080/tcp"])
    client = docker.APIClient(base_url=address)
    client.tag(name, "nextdeploy-shop", "dev")
    client.close()
    return name


def busybox(address: str) -> str:
    """A shell and little else: what builds of tests start from."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(os.path.realpath(_busybox()), "bin/busybox")
        for word in SHELL_WORDS:
            link = tarfile.TarInfo(f"bin/{word}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for folder in ("tmp", "etc", "proc", "dev"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
    return _imported(address, "nextdeploy-busybox", repr(SHELL_WORDS), lambda: buffer.getvalue(), ['CMD ["sh"]'])


def _busybox() -> str:
    found = next((p for p in ("/bin/busybox", "/usr/bin/busybox") if os.path.exists(p)), None)
    assert found is not None, "busybox-static is needed to make images"
    return found


def _image(address: str, name: str, files: dict[str, bytes], changes: list[str]) -> str:
    what = repr((sys.version, sorted(files.items())))
    return _imported(address, name, what, lambda: _root_file_system(files), changes)


def _imported(address: str, name: str, what: str, content: Callable[[], bytes], changes: list[str]) -> str:
    """Made once: its tag is the digest of what is in it."""
    mark = hashlib.sha256(repr((what, changes, 4)).encode()).hexdigest()[:12]
    tag = f"{name}:{mark}"
    client = docker.APIClient(base_url=address, timeout=300)
    try:
        client.inspect_image(tag)
    except docker.errors.ImageNotFound:
        changes = [*changes, "ENV PATH=/bin:/usr/bin"]
        client.import_image_from_data(content(), repository=name, tag=mark, changes=changes)
    finally:
        client.close()
    return tag


def _root_file_system(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    python = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    home = f"/usr/lib/python{sys.version_info.major}.{sys.version_info.minor}"
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("tmp", "data", "etc", "proc", "dev", "bin", "app"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder in ("tmp", "data") else 0o755
            tar.addfile(entry)
        _add(tar, "/etc/passwd", b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
        _add(tar, "/etc/group", b"root:x:0:\nnogroup:x:65534:\n")
        tar.add(python, "usr/bin/python3")
        launcher = b'#!/bin/sh\nexport PYTHONHOME=/usr PYTHONUNBUFFERED=1\nexec /usr/bin/python3 "$@"\n'
        _add(tar, "/bin/python3", launcher, 0o755)
        tar.add(os.path.realpath(_busybox()), "bin/busybox")
        for word in ("sh", "sleep", "echo", "cat", "kill", "env", "nc", "wget", "true", "false", "ls", "nslookup"):
            link = tarfile.TarInfo(f"bin/{word}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        modules = [
            p
            for p in (library / "lib-dynload").glob("*.so")
            if not re.search(r"_test|_tkinter|_curses|_dbm|_gdbm", p.name)
        ]
        for needed in sorted(_libraries([python, *modules])):
            tar.add(os.path.realpath(needed), needed.lstrip("/"))
        for path in sorted(library.rglob("*")):
            inside = path.relative_to(library)
            if path.suffix in (".py", ".so") and not any(part.startswith(LEFT_OUT) for part in inside.parts):
                tar.add(path, f"{home}/{inside}".lstrip("/"))
        for name, content in files.items():
            _add(tar, name, content)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name.lstrip("/"))
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def _libraries(binaries: list[Path]) -> set[str]:
    """What the dynamic linker would load for them, under the names by which it looks."""
    found = set()
    for binary in binaries:
        output = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
        found |= set(re.findall(r"(?:=> )?(/\S+) \(0x", output))
    return found

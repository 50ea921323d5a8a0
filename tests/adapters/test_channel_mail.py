"""Mail to real SMTP servers, with and without encryption, that accept, refuse, hang and lie."""

from __future__ import annotations

import datetime
import email
import email.policy
import ipaddress
import re
import socket
import ssl
import threading
import time

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from ndactors.adapters import channel_mail
from ndactors.adapters.channel_mail import MailChannel
from ndactors.core.alerts import AlertView
from ndactors.core.model import Email
from ndactors.core.notices import fitted
from ndactors.core.notifications import Notification
from ndactors.core.schema import MAILBOX, SENDER

PASSWORD = "correct-horse-S3CRET"
ALERT = AlertView(
    id="a1", kind="oom", rule="oom", severity="critical", app="shop", summary="shop ran out of memory: größer"
)
NOTE = Notification(
    id="n.1", at=1_769_860_800.0, state="firing", title="shop is down – größer", alerts=(ALERT,), server="web1"
)


class Mailbox:
    """What came; ``answers`` are given instead, by verb, one after the other."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, list[str], bytes]] = []
        self.answers: dict[str, list[str]] = {}
        self.logins = 0
        self.secure: list[bool] = []

    def _next(self, verb: str) -> str | None:
        rows = self.answers.get(verb)
        return rows.pop(0) if rows else None

    async def handle_MAIL(self, server, session, envelope, address, options):
        envelope.mail_from = address
        return self._next("MAIL") or "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        answer = self._next(f"RCPT {address}") or self._next("RCPT")
        if answer is None:
            envelope.rcpt_tos.append(address)
        return answer or "250 OK"

    async def handle_DATA(self, server, session, envelope):
        answer = self._next("DATA")
        if answer is None:
            self.mails.append((envelope.mail_from, list(envelope.rcpt_tos), envelope.content))
            self.secure.append(session.ssl is not None)
        return answer or "250 OK"

    def login(self, server, session, envelope, mechanism, given):
        self.logins += 1
        if self.answers.get("AUTH"):
            return AuthResult(success=False, handled=False, message=self._next("AUTH"))
        right = isinstance(given, LoginPassword) and (given.login, given.password) == (b"alerts", PASSWORD.encode())
        return AuthResult(success=right, handled=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A certification authority of our own, and a server's certificate for localhost by it."""
    folder = tmp_path_factory.mktemp("tls")
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("test authority", "localhost")]
    made = []
    for place, (key, name) in enumerate(zip(keys, names, strict=True)):
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(names[0])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=place == 0, path_length=None), critical=True)
        )
        if place:
            alternatives = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        made.append(builder.sign(keys[0], hashes.SHA256()))
    for name, certificate, key in zip(("ca", "server"), made, keys, strict=True):
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return folder


@pytest.fixture
def trust(authority):
    return lambda: ssl.create_default_context(cafile=str(authority / "ca.pem"))


class TlsFirst(Controller):
    """Port 465's way, on any port; the handshake that asks whether it is up has to trust it."""

    def _trigger_server(self):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection((self.hostname, self.port), 5) as sock:
            with context.wrap_socket(sock) as secure:
                secure.recv(1)


@pytest.fixture
def serve(authority):
    started = []

    def start(mailbox, *, tls: bool = False, first: bool = False, login: bool = False, plain_login: bool = False):
        context = None
        if tls or first:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(authority / "server.pem", authority / "server.key")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        more = {"authenticator": mailbox.login, "auth_require_tls": not plain_login} if login else {}
        if login and not plain_login:
            more["auth_required"] = True
        if first:
            controller = TlsFirst(mailbox, hostname="127.0.0.1", port=port, ssl_context=context, **more)
        else:
            controller = Controller(mailbox, hostname="127.0.0.1", port=port, tls_context=context, **more)
        controller.start()
        started.append(controller)
        return port

    yield start
    for controller in started:
        controller.stop(no_assert=True)


@pytest.fixture
def mailbox():
    return Mailbox()


def settings(port: int, **more) -> Email:
    given = {"to": ("ops@example.com",), "sender": "alerts@example.com", "smtp": f"127.0.0.1:{port}", "starttls": False}
    return Email(**{**given, **more})


def send(port: int, note=NOTE, context=ssl.create_default_context, seconds: float = 10.0, **more):
    return MailChannel(settings(port, **more), "web1", seconds=seconds, context=context).send(fitted(note))


def read(content: bytes):
    return email.message_from_bytes(content, policy=email.policy.default)


# -- what is sent ----------------------------------------------------------------------------------


def test_one_message_for_all_recipients(serve, mailbox):
    answer = send(serve(mailbox), to=("ops@example.com", "boss@example.com"), sender="Größer <alerts@example.com>")
    assert (answer.good, answer.words) == (True, "accepted")
    ((sender, to, content),) = mailbox.mails
    assert (sender, to) == ("alerts@example.com", ["ops@example.com", "boss@example.com"])
    mail = read(content)
    assert mail["To"] == "ops@example.com, boss@example.com"
    assert mail["From"] == "Größer <alerts@example.com>"
    assert mail["Subject"] == "[web1] Critical: shop is down – größer"
    assert mail["Date"] == "Sat, 31 Jan 2026 12:00:00 +0000"
    assert mail["Message-ID"] == "<n_1.firing@example.com>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert "CRITICAL: shop ran out of memory: größer" in mail.get_content()
    assert content.isascii() and max(map(len, content.splitlines())) < 998


def test_no_header_comes_from_a_text(serve, mailbox):
    evil = Notification(
        id="x\r\nBcc: all@x.test", at=0.0, state="firing", title="a\r\nBcc: all@x.test\r\n\r\nhi", server="s"
    )
    assert send(serve(mailbox), evil).good
    ((_, to, content),) = mailbox.mails
    assert to == ["ops@example.com"] and read(content)["Bcc"] is None
    assert b"\nBcc:" not in content


def test_a_line_with_a_dot_is_no_end(serve, mailbox):
    note = Notification(
        id="n",
        at=0.0,
        state="firing",
        title="t",
        alerts=(AlertView(id=".", kind="k", rule="r", summary=".", advice="."),),
    )
    assert send(serve(mailbox), note).good
    assert "To do: ." in read(mailbox.mails[0][2]).get_content()


def test_the_same_message_has_the_same_id_at_every_try(serve, mailbox):
    port = serve(mailbox)
    mailbox.answers["DATA"] = ["451 try again later"]
    first = send(port)
    assert (first.good, first.again, first.words) == (False, True, "answered 451: try again later")
    assert send(port).good and send(port).good
    assert len({read(content)["Message-ID"] for _, _, content in mailbox.mails}) == 1


# -- encryption ------------------------------------------------------------------------------------


def test_starttls_with_a_certificate_that_is_trusted(serve, mailbox, trust):
    port = serve(mailbox, tls=True, login=True)
    answer = send(port, context=trust, starttls=True, username="alerts", password=PASSWORD)
    assert (answer.good, answer.words, mailbox.secure, mailbox.logins) == (True, "accepted", [True], 1)


def test_a_certificate_that_nobody_vouches_for(serve, mailbox):
    answer = send(serve(mailbox, tls=True), starttls=True)
    assert not answer.good and answer.words.startswith("its certificate is not good: ")
    assert mailbox.mails == []


def test_a_certificate_for_another_name(serve, mailbox, trust, monkeypatch):
    port = serve(mailbox, tls=True)
    answer = send(port, context=trust, starttls=True, smtp=f"127.0.0.2:{port}")
    assert not answer.good and mailbox.mails == []  # nobody listens there, or the name is wrong
    monkeypatch.setattr("socket.getaddrinfo", _to_this_machine(port))
    answer = send(port, context=trust, starttls=True, smtp=f"mail.example.com:{port}")
    assert answer.words.startswith("its certificate is not good: ") and mailbox.mails == []


def _to_this_machine(port):
    return lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


def test_a_server_without_starttls_gets_nothing_in_the_clear(serve, mailbox):
    answer = send(serve(mailbox), starttls=True)
    assert (answer.good, answer.again) == (False, False)
    assert answer.words.startswith("it offers no STARTTLS; nothing is sent in the clear")
    assert mailbox.mails == []


def test_port_465_is_tls_from_the_start(serve, mailbox, trust, monkeypatch):
    port = serve(mailbox, first=True, login=True, plain_login=True)
    monkeypatch.setattr(channel_mail, "SUBMISSIONS", port)
    answer = send(port, context=trust, starttls=True, username="alerts", password=PASSWORD)
    assert (answer.good, answer.words, mailbox.logins) == (True, "accepted", 1)
    answer = send(port)
    assert not answer.good and answer.words.startswith("its certificate is not good: ")


def test_no_password_goes_in_the_clear_but_to_this_machine(serve, mailbox, monkeypatch):
    port = serve(mailbox, login=True, plain_login=True)
    more = {"username": "alerts", "password": PASSWORD}
    assert send(port, **more).good, "it never leaves this machine"
    monkeypatch.setattr(channel_mail, "_near", lambda sock: False)
    answer = send(port, **more)
    assert (answer.good, answer.again, mailbox.logins) == (False, False, 1)
    assert answer.words.startswith("its password would go in the clear")


# -- logins ----------------------------------------------------------------------------------------


def test_a_wrong_password(serve, mailbox, trust):
    port = serve(mailbox, tls=True, login=True)
    answer = send(port, context=trust, starttls=True, username="alerts", password="wrong")
    assert (answer.good, answer.again) == (False, False)
    assert answer.words.startswith("does not accept the user or the password (answered 535")


def test_a_login_that_fails_for_now(serve, mailbox, trust):
    port = serve(mailbox, tls=True, login=True)
    mailbox.answers["AUTH"] = ["454 4.7.0 Temporary authentication failure"] * 3
    answer = send(port, context=trust, starttls=True, username="alerts", password=PASSWORD)
    assert (answer.good, answer.again) == (False, True)


def test_a_server_that_repeats_the_login_does_not_give_it_away(serve, mailbox, trust):
    import base64

    port = serve(mailbox, tls=True, login=True)
    both = base64.b64encode(f"\0alerts\0{PASSWORD}".encode()).decode()
    mailbox.answers["AUTH"] = [f"535 no: AUTH PLAIN {both} {PASSWORD}"] * 3
    answer = send(port, context=trust, starttls=True, username="alerts", password=PASSWORD)
    assert "535" in answer.words and PASSWORD not in answer.words and both not in answer.words


def test_a_password_that_cannot_be_written_does_not_show(serve, mailbox, trust):
    port = serve(mailbox, tls=True, login=True)
    answer = send(port, context=trust, starttls=True, username="alerts", password="größer")
    assert (answer.good, answer.words) == (False, "user, password and addresses have to be ASCII for this server")


def test_a_login_that_is_not_offered(serve, mailbox):
    answer = send(serve(mailbox), username="alerts", password=PASSWORD)
    assert (answer.good, answer.words) == (False, "it offers no login, but a `username` is configured")


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "again"), [("550 no such user", False), ("450 greylisted, come back", True)])
def test_a_recipient_is_refused(serve, mailbox, code, again):
    port = serve(mailbox)
    mailbox.answers["RCPT"] = [code]
    answer = send(port)
    assert (answer.good, answer.again) == (False, again)
    assert answer.words == f"refused for ops@example.com ({code[:3]}: {code[4:]})"
    assert send(port).good


def test_some_recipients_are_refused(serve, mailbox):
    port = serve(mailbox)
    mailbox.answers["RCPT gone@example.com"] = ["550 no such user"]
    answer = send(port, to=("ops@example.com", "gone@example.com"))
    assert (answer.good, answer.words) == (True, "accepted, but not for gone@example.com (550: no such user)")
    assert mailbox.mails[0][1] == ["ops@example.com"]


@pytest.mark.parametrize("verb", ["MAIL", "DATA"])
@pytest.mark.parametrize(("code", "again"), [("554 no", False), ("421 not now", True), ("451 later", True)])
def test_other_refusals(serve, mailbox, verb, code, again):
    port = serve(mailbox)
    mailbox.answers[verb] = [code]
    answer = send(port)
    assert (answer.good, answer.again, code[:3] in answer.words) == (False, again, True)


# -- servers that are no good ----------------------------------------------------------------------


@pytest.fixture
def raw():
    """A server that is a function of the socket."""
    listeners = []

    def start(serve):
        listener = socket.create_server(("127.0.0.1", 0))

        def accept():
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=_served, args=(serve, sock), daemon=True).start()

        waiting = threading.Thread(target=accept, daemon=True)
        waiting.start()
        listeners.append((listener, waiting))
        return listener.getsockname()[1]

    yield start
    for listener, waiting in listeners:
        listener.shutdown(socket.SHUT_RDWR)  # whoever waits in accept() goes on; closing would leave it there
        waiting.join(10)
        listener.close()


def _served(serve, sock):
    with sock:
        try:
            serve(sock)
        except OSError:
            return


def test_one_that_hangs(raw):
    over = threading.Event()
    port = raw(lambda sock: over.wait(20))
    began = time.monotonic()
    answer = send(port, seconds=0.5)
    over.set()
    assert time.monotonic() - began < 3
    assert (answer.good, answer.again, answer.words) == (False, True, "no answer within 0.5 s")


def test_one_that_is_not_there():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    answer = send(port)
    assert (answer.good, answer.again, answer.words) == (False, True, "cannot be reached: Connection refused")


def test_one_whose_name_nobody_knows():
    answer = send(25, smtp="no-such-host.invalid:25")
    assert (answer.good, answer.again) == (False, True) and answer.words.startswith("cannot be reached: ")


@pytest.mark.parametrize(
    ("greeting", "again"), [(b"", True), (b"220 hi\r\n", True), (b"554 go away\r\n", False), (b"421 busy\r\n", True)]
)
def test_one_that_greets_and_closes(raw, greeting, again):
    answer = send(raw(lambda sock: sock.sendall(greeting)))
    assert (answer.good, answer.again) == (False, again)


@pytest.mark.parametrize("nonsense", [b"\xff\xfe\x00" * 100 + b"\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220"])
def test_one_that_is_no_mail_server(raw, nonsense):
    answer = send(raw(lambda sock: sock.sendall(nonsense)))
    assert not answer.good and answer.words.isprintable()


def test_one_that_answers_without_end(raw):
    def flood(sock):
        while True:
            sock.sendall(b"220-and so on\r\n" * 1000)

    began = time.monotonic()
    answer = send(raw(flood))
    assert (answer.good, answer.again) == (False, True)
    assert time.monotonic() - began < 5


def test_what_was_accepted_is_not_sent_again_because_of_a_bad_goodbye(raw):
    over = threading.Event()

    def serve(sock):
        file = sock.makefile("rb")
        sock.sendall(b"220 hi\r\n")
        for line in file:
            verb = line[:4].upper()
            if verb == b"DATA":
                sock.sendall(b"354 go on\r\n")
                while file.readline() != b".\r\n":
                    pass
            if verb == b"QUIT":
                over.wait(20)
                return
            sock.sendall(b"250 ok\r\n")

    answer = send(raw(serve), seconds=5.0)
    over.set()
    assert (answer.good, answer.words) == (True, "accepted")


@pytest.mark.parametrize(
    ("sender", "name", "address"),
    [
        ("a@x.test", "", "a@x.test"),
        ("Ops, the team <a@x.test>", "Ops, the team", "a@x.test"),
        ('"Ops \\"x\\"" <a@x.test>', "Ops x", "a@x.test"),
        ("<a@x.test>", "", "a@x.test"),
        ("Größer & (Söhne); <a@x.test>", "Größer & (Söhne);", "a@x.test"),
    ],
)
def test_senders(serve, mailbox, sender, name, address):
    assert send(serve(mailbox), sender=sender).good
    ((by, _, content),) = mailbox.mails
    (found,) = read(content)["From"].addresses
    assert (by, found.display_name, found.addr_spec) == (address, name, address)


@pytest.mark.parametrize("host", ["a..b", "-", "x" * 300, "."])
def test_addresses_that_make_no_sense(host):
    answer = send(25, smtp=f"{host}:25")
    assert not answer.good and answer.words.startswith(("its address makes no sense", "cannot be reached: "))


ATOMS = "aZ0!#$%&'*+/=?^_`{|}~-"
names = st.text(max_size=200).filter(lambda text: re.fullmatch(SENDER, f"{text}<a@b>"))
locals_ = st.lists(st.text(ATOMS, min_size=1, max_size=30), min_size=1, max_size=3).map(".".join)
domains = st.lists(st.text("aZ0", min_size=1, max_size=63), min_size=1, max_size=4).map(".".join)
mailboxes = st.builds("{}@{}".format, locals_, domains).filter(lambda text: re.fullmatch(MAILBOX, text))


@settings_of_hypothesis(max_examples=100, deadline=None)
@given(names, mailboxes, st.lists(mailboxes, min_size=1, max_size=50))
def test_whatever_the_configuration_lets_pass_makes_a_message(name, address, to):
    sender = f"{name} <{address}>" if name.strip() else address
    channel = MailChannel(settings(25, sender=sender, to=tuple(to)), "web1")
    content = channel._message(fitted(NOTE)).as_bytes()
    head = content.partition(b"\r\n\r\n")[0]
    names = [line.partition(b":")[0] for line in head.split(b"\r\n") if line[:1] not in b" \t"]
    assert set(names) <= {
        b"From", b"To", b"Subject", b"Date", b"Message-ID", b"Auto-Submitted", b"X-Auto-Response-Suppress", b"Content-Type",
        b"Content-Transfer-Encoding", b"MIME-Version",
    }  # fmt: skip
    assert len(names) == len(set(names))
    told = read(content)
    assert [each.addr_spec for each in told["To"].addresses] == to
    assert [each.addr_spec for each in told["From"].addresses] == [address]


def test_what_a_channel_is_called():
    channel = MailChannel(
        settings(587, to=tuple(f"u{n}@x.test" for n in range(5)), username="u", password=PASSWORD), "web1"
    )
    assert channel.name == "mail to u0@x.test, u1@x.test, u2@x.test and 2 more by 127.0.0.1:587"
    assert PASSWORD not in channel.key
    other = MailChannel(settings(587, password="another"), "web1")
    assert other.key == MailChannel(settings(587), "web1").key, "a new password is no new channel"
    assert MailChannel(settings(0, smtp="[::1]:587"), "web1").name == "mail to ops@example.com by [::1]:587"

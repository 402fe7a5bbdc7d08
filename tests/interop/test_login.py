"""The life of a node, as people live it: login by page or key, logout, rename, expiry, deletion."""

from __future__ import annotations

import pytest

from tests.interop.client import Client
from tests.interop.netns import pause, wait_for
from tests.interop.trial import PORT, Trial, reach, resolve, see_each_other


@pytest.mark.main
def test_interactive_login_is_approved_by_command(trial: Trial) -> None:
    ann = trial.client("ann")
    url = ann.login_url(trial.server.url)
    assert url.startswith(trial.server.url + "/")
    page = ann.host.run("curl", "-sS", "--fail", "--cacert", str(trial.server.ca), url).stdout
    assert url.rstrip("/").rsplit("/", 1)[-1] in page, "the page shows the id for the approving command"
    trial.server.approve(url)
    ann.wait_state("Running")
    assert trial.server.node("ann").user == "alice"


@pytest.mark.main
def test_interactive_relogin_keeps_node_and_address(trial: Trial) -> None:
    """`up --force-reauth` without a key: approved again by its id alone, still one node with its address."""
    ann, bob = trial.pair()
    before = trial.server.node("ann")
    url = ann.login_url(trial.server.url, force_reauth=True)
    trial.server.approve(url.rstrip("/").rsplit("/", 1)[-1])
    ann.wait_state("Running")
    see_each_other(ann, bob)
    after = trial.server.node("ann")
    assert (after.id, after.addresses) == (before.id, before.addresses)
    assert len(trial.server.nodes()) == 2
    ann.ping("bob")


@pytest.mark.main
def test_after_logout_a_new_login_works_and_peers_see_it(trial: Trial) -> None:
    ann, bob = trial.pair()
    ann.cli("logout")
    ann.wait_state("NeedsLogin")
    assert all(node.name != "ann" or node.expired or not node.online for node in trial.server.nodes())
    wait_for(lambda: not (bob.peer("ann") or {}).get("Online"), 20, "bob sees ann offline or gone")
    # 1.80 now and then keeps half of its settings over a logout, and then wants them all named again.
    ann.up(trial.server.url, trial.key(), reset=True)
    see_each_other(ann, bob)
    ann.ping("bob")


@pytest.mark.main
def test_new_hostname_reaches_the_peer_and_resolves(trial: Trial) -> None:
    ann, bob = trial.pair()
    ann.set(hostname="anna")
    bob.wait_peer("anna", timeout=10)
    assert wait_for(lambda: resolve(bob, "anna"), 5, "the new name resolves") == [ann.address]


def test_rename_by_command_wins_over_the_hostname(trial: Trial) -> None:
    ann, bob = trial.pair()
    trial.server.ask("nodes", "rename", "ann", "printer")
    bob.wait_peer("printer", timeout=10)
    ann.set(hostname="anna")
    assert wait_for(lambda: resolve(bob, "printer"), 5, "the given name resolves") == [ann.address]
    assert bob.peer("anna") is None
    trial.server.ask("nodes", "rename", "printer", "")
    bob.wait_peer("anna", timeout=10)


@pytest.mark.main
def test_expired_node_must_log_in_again_and_keeps_its_address(trial: Trial) -> None:
    ann, bob = trial.pair()
    address = ann.address
    trial.server.ask("nodes", "expire", "ann")
    wait_for(lambda: expired(ann), 15, "ann knows that it expired", every=0.2)
    wait_for(lambda: (bob.peer("ann") or {"Expired": True}).get("Expired"), 15, "bob sees it too", every=0.2)
    ann.up(trial.server.url, trial.key(), force_reauth=True)
    see_each_other(ann, bob)
    assert ann.address == address
    ann.ping("bob")


def test_extended_node_comes_back_without_a_login(trial: Trial) -> None:
    ann, bob = trial.pair()
    trial.server.ask("nodes", "expire", "ann")
    wait_for(lambda: expired(ann), 15, "ann knows that it expired", every=0.2)
    trial.server.ask("nodes", "extend", "ann", "--expiry", "90d")
    wait_for(lambda: ann.state == "Running" and not expired(ann), 15, "ann runs again", every=0.2)
    see_each_other(ann, bob)
    wait_for(lambda: bob.pings("ann"), 15, "bob reaches ann")


def expired(client: Client) -> bool:
    status = client.status()
    return status["BackendState"] == "NeedsLogin" or bool(status["Self"].get("Expired"))


@pytest.mark.main
def test_ephemeral_node_vanishes_when_it_logs_out(trial: Trial) -> None:
    bob = trial.join("bob")
    ann = trial.join("ann", key=trial.server.create_key(ephemeral=True))
    see_each_other(ann, bob)
    ann.cli("logout")
    bob.wait_gone("ann")
    wait_for(
        lambda: {node.name for node in trial.server.nodes()} == {"bob"}, 15, "gone on the server", every=0.3
    )


@pytest.mark.main
def test_deleted_node_is_out_at_once_and_asks_for_a_login(trial: Trial) -> None:
    ann, bob = trial.pair()
    bob.host.serve(PORT)
    address = bob.address
    wait_for(lambda: reach(ann, address) == "open", 10, "open before")
    trial.server.ask("nodes", "delete", "ann", "--yes")
    bob.wait_gone("ann", timeout=10)
    assert reach(ann, address) != "open"
    ann.wait_state("NeedsLogin", timeout=20)
    ann.up(trial.server.url, trial.key())
    # Not `see_each_other`: to the new node a 1.80 client does not repeat what its home relay is.
    wait_for(lambda: reach(ann, address) == "open", 20, "open again")


def test_node_deleted_while_off_asks_for_a_login(trial: Trial) -> None:
    ann = trial.join("ann")
    ann.stop()
    trial.server.ask("nodes", "delete", "ann", "--yes")
    ann.start()
    # A client that keeps its netmap goes on with it, "Running", and asks all the same.
    wait_for(
        lambda: ann.state == "NeedsLogin" or ann.status()["AuthURL"], 20, "ann asks for a login", every=0.2
    )
    ann.up(trial.server.url, trial.key())
    assert trial.server.node("ann").online


@pytest.mark.main
def test_killed_client_comes_back_as_the_same_node(trial: Trial) -> None:
    ann, bob = trial.pair()
    address = ann.address
    ann.kill()
    ann.start()
    ann.wait_state("Running", timeout=30)
    assert ann.address == address
    see_each_other(ann, bob)
    assert len(trial.server.nodes()) == 2
    ann.ping("bob")


def refused(trial: Trial, client: Client, *flags: str) -> str:
    """`tailscale up` must fail; what the client tells its user."""
    words = (f"--login-server={trial.server.url}", "--timeout=8s", *flags)
    done = client.cli("up", *words, check=False)
    assert done.returncode != 0, done.stdout
    return done.stdout + done.stderr + client.cli("status", check=False).stdout


@pytest.mark.main
def test_single_use_key_lets_one_machine_in_and_tells_the_second_why_not(trial: Trial) -> None:
    key = trial.server.create_key()
    trial.join("ann", key=key)
    text = refused(trial, trial.client("bob"), f"--auth-key={key}")
    assert "used" in text
    assert {node.name for node in trial.server.nodes()} == {"ann"}


def test_revoked_and_unknown_keys_are_refused_with_a_reason(trial: Trial) -> None:
    entry = trial.server.ask("keys", "create", "--user", "alice", "--reusable")
    ann = trial.join("ann", key=entry["key"])
    trial.server.ask("keys", "revoke", entry["id"])
    bob = trial.client("bob")
    assert "revoked" in refused(trial, bob, f"--auth-key={entry['key']}")
    wrong = entry["key"][:-1] + ("A" if entry["key"][-1] != "A" else "B")
    assert "key" in refused(trial, bob, f"--auth-key={wrong}")
    assert {node.name for node in trial.server.nodes()} == {"ann"}
    assert ann.state == "Running", "who is in stays in"


@pytest.mark.long
def test_expired_key_is_refused_with_a_reason(trial: Trial) -> None:
    key = trial.server.create_key(expiry="1m")  # the shortest there is
    ann = trial.client("ann")
    pause(61)
    assert "expired" in refused(trial, ann, f"--auth-key={key}")
    assert trial.server.nodes() == []


def test_tagged_key_makes_a_tagged_node(trial: Trial) -> None:
    trial.join("ann", key=trial.server.create_key(tags=("tag:web", "tag:db")))
    node = trial.server.node("ann")
    assert node.tags == {"tag:web", "tag:db"}
    assert node.user is None


def test_tags_that_a_client_asks_for_are_refused_with_a_reason(trial: Trial) -> None:
    text = refused(trial, trial.client("ann"), f"--auth-key={trial.key()}", "--advertise-tags=tag:mine")
    assert "tag:mine" in text

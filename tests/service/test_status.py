"""`status` where a service is installed: this shell beside the unit."""

from __future__ import annotations

import pytest

from tests.parts.systemd import Container
from tests.service.test_owner import brought_up

COUNTED = """#!/bin/sh
echo "$@" >> /tmp/systemctl.calls
exec /usr/bin/systemctl "$@"
"""

pytestmark = pytest.mark.real("systemd", "ollama", "model")


def test_what_differs_between_this_shell_and_the_unit(container: Container) -> None:
    made = brought_up(container)
    container.run("useradd", "--create-home", "ann")
    found = made.llmctl("status", "--json", user="ann").json
    assert found["verdict"] == "proved"
    told = {one["what"]: one for one in found["service"]["differences"]}
    assert (told["user"]["unit"], told["user"]["shell"]) == ("llmctl", "ann")
    assert "video" in told["groups"]["unit"]
    # The service of a machine has a user of its own: that misleads nobody.
    assert not [one for one in told.values() if one["matters"]]
    assert "differs" not in made.llmctl("status", user="ann").out

    # What systemd knows is asked once, of both units, whoever asks.
    container.write("/counted/systemctl", COUNTED, "0755")
    for user in (None, "ann"):
        container.write("/tmp/systemctl.calls", "", "0666")
        assert made.llmctl("status", user=user, environ={"PATH": "/counted:/usr/local/bin:/usr/bin"}).code == 0
        calls = container.run("cat", "/tmp/systemctl.calls").stdout.splitlines()
        assert [call.split()[0] for call in calls] == ["show"], calls

    # Of device files only their modes count here; no GPU is needed for that.
    for node, mode, owner in (("nvidia0", "0660", "root:video"), ("dri/renderD128", "0600", "ann:ann")):
        container.write(f"/dev/{node}", "", mode)
        container.run("chown", owner, f"/dev/{node}")
    container.write("/home/ann/bin/ollama", "#!/bin/sh\n", "0755")
    environ = {
        "OLLAMA_HOST": f"http://localhost:{made.port}",
        "OLLAMA_MODELS": "/home/ann/models",
        "PATH": "/usr/local/bin:/usr/bin:/home/ann/bin",
    }
    service = made.llmctl("status", "--json", user="ann", environ=environ).json["service"]
    told = {one["what"]: (one["unit"], one["shell"]) for one in service["differences"] if one["matters"]}
    assert told == {
        "ollama": (service["unit"]["ollama"], "/home/ann/bin/ollama"),
        "nodes": ("/dev/nvidia0", "/dev/dri/renderD128"),
        "OLLAMA_MODELS": ("/var/lib/llmctl/models", "/home/ann/models"),
    }
    assert service["unit"]["ollama"].endswith("/bin/ollama")
    words = " ".join(made.llmctl("status", user="ann", environ=environ).out.split())
    assert "OLLAMA_MODELS is /home/ann/models in this shell; the unit has /var/lib/llmctl/models" in words
    assert "the unit (llmctl) may open /dev/nvidia0, this shell (ann) may not" in words
    assert "this shell (ann) may open /dev/dri/renderD128, the unit (llmctl) may not" in words
    assert "PATH here has /home/ann/bin/ollama" in words

"""``make demo``: the script behind it shows what it says, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.support.daemon import NOUS
from tests.support.home import ROOT, SCALE, TEST_SECONDS


def test_the_demo_reads_a_real_file_and_cleans_up(tmp_path: Path) -> None:
    out = subprocess.run(
        ["bash", str(ROOT / "scripts" / "demo.sh"), *NOUS],
        # Settings of the user's own must not reach it: this one nous would refuse.
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "NOUS_NONSENSE": "1"},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TEST_SECONDS * SCALE,
        check=False,
    )
    assert out.returncode == 0, out.stderr.decode()
    wire, _, rest = out.stdout.rpartition(b'"reason":"eof"}}\n')
    lines = [json.loads(line) for line in (wire + b'"reason":"eof"}}').split(b"\n")]
    assert lines[0]["payload"]["message"] == "ready"
    assert [line["type"] for line in lines if "ok" in line] == ["pong", "accepted", "accepted"]
    (call,) = [line["payload"] for line in lines if line["type"] == "tool_execution_end"]
    assert (call["tool_name"], call["is_error"]) == ("read", False)
    assert call["result"] == (ROOT / "fixtures" / "demo" / "shopping.txt").read_text(encoding="utf-8")
    assert lines[-2]["payload"]["status"] == "completed"
    assert rest == b"I will look at the list.\nYou need bread, milk and three apples.\n"
    assert list(tmp_path.iterdir()) == []

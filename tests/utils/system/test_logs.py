"""What is logged when nobody reads it."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.processes import ROOT

CODE = """
import sys
from utils.system import logs
logs.setup()
sys.stdin.read()
for line in range(3):
    logs.logger.info("line %d", line)
sys.exit(7)
"""


def test_a_program_goes_on_when_the_reader_of_its_lines_has_ended():
    pipe = subprocess.PIPE
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CODE]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment) as program:
        assert program.stdin and program.stdout and program.stderr
        program.stdout.close()
        program.stdin.close()
        assert program.stderr.read() == b""
    assert program.returncode == 7

"""Runs the command line as a shell would."""

import csv
import io
import json
from decimal import Decimal
from typing import Any

from click.testing import CliRunner, Result

from lastchunk.cli import main


class Cli:
    """`cli("calls", "--open")`: the result; `.text`, `.json`, `.csv`: its output, read."""

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, arguments, prog_name="lastchunk")

    def text(self, *arguments: str) -> str:
        result = self(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *arguments: str) -> Any:
        """Amounts are Decimals: the digits as they were written."""
        return json.loads(self.text(*arguments, "--json"), parse_float=Decimal)

    def csv(self, *arguments: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.text(*arguments, "--csv"))))

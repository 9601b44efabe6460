import sys
from pathlib import Path

for _folder in ("gateway", "node"):  # their helpers: a gateway in a thread, the installed SDK
    sys.path.append(str(Path(__file__).parents[1] / _folder))

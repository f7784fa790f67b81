"""Whether a model folder will load, found out from its configuration and the headers of its weight files.

Given a folder. No tensor is read and no weights are held in memory, so that it takes seconds for any size. It changes
nothing, and asks no network.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from i2vgen_ms.config.reader import read, weight_file
from i2vgen_ms.config.schema import Configuration
from i2vgen_ms.errors import CheckpointError, I2VGenError
from i2vgen_ms.weights import architecture
from i2vgen_ms.weights.checkpoint import Checkpoint, open_checkpoint
from i2vgen_ms.weights.comparison import Comparison, compare


@dataclass(frozen=True)
class Finding:
    """What was found out about one part of the folder: its name, its file, whether it will load, and the reason."""

    part: str
    file: str
    ok: bool
    text: str

    def __str__(self) -> str:
        verdict = "will load" if self.ok else "will NOT load"
        return f"{self.part} ({self.file}): {verdict}: {self.text}"


@dataclass(frozen=True)
class Report:
    """The findings of a folder; `str()` gives one paragraph for each."""

    folder: Path
    findings: Sequence[Finding]

    @property
    def ok(self) -> bool:
        """Whether the whole folder will load."""
        return all(finding.ok for finding in self.findings)

    def __str__(self) -> str:
        broken = sum(not finding.ok for finding in self.findings)
        last = (
            "will load (the data itself is checked at the first load)" if self.ok else f"will not load: {broken} broken"
        )
        return "\n".join([*(str(finding) for finding in self.findings), f"{self.folder}: {last}"])


def check(folder: str | os.PathLike[str]) -> Report:
    """Looks at a model folder's configuration.json and, for each network, at the headers of its weight file.

    Whatever is wrong stands in the report; nothing that is found in a folder raises.
    """
    folder = Path(folder)
    try:
        configuration = read(folder)
    except I2VGenError as error:
        return Report(folder, [Finding("configuration", "configuration.json", False, str(error))])
    findings = [Finding("configuration", "configuration.json", True, f"task {configuration.task}")]
    findings += [_network(configuration, folder, name) for name in architecture.NETWORKS]
    return Report(folder, findings)


def _network(configuration: Configuration, folder: Path, name: str) -> Finding:
    file = getattr(configuration.weights, name)
    try:
        path = weight_file(folder, file)
        if not os.path.lexists(path):
            raise CheckpointError(_absent(path))
        built = architecture.build(configuration, name)
        checkpoint = open_checkpoint(path)
        comparison = compare(built.network.state_dict(keep_vars=True), checkpoint, built.layout)
    except I2VGenError as error:
        return Finding(name, file, False, str(error).removeprefix(f"{folder / file}: "))
    if not comparison.ok:
        return Finding(name, file, False, f"it does not fit this configuration:\n{comparison}")
    return Finding(name, file, True, _contents(checkpoint, comparison))


def _absent(path: Path) -> str:
    unfinished = path.with_name(path.name + ".incomplete")
    if unfinished.exists():
        return f"its download is not finished ({unfinished.name} is there); run the download again"
    return "the file is not there; download the model again"


def _contents(checkpoint: Checkpoint, comparison: Comparison) -> str:
    taken = [checkpoint[published] for published in comparison.pairs.values()]
    types = ", ".join(sorted({str(record.dtype).removeprefix("torch.") for record in taken}))
    size = sum(record.nbytes for record in taken)
    return (
        f"{len(taken)} tensors, {types}, {size / 2**20:.1f} MiB of {len(checkpoint.file) / 2**20:.1f} MiB in the file"
    )

"""Writers: videos into files, chosen by the name's suffix; one part a format."""

from __future__ import annotations

from i2vgen_ms.media.writers.output import SUFFIXES, Output, open_writer, probe
from i2vgen_ms.media.writers.part import Frame, Picture, Sink, WriterPart
from i2vgen_ms.media.writers.target import numbered

__all__ = ["SUFFIXES", "Frame", "Output", "Picture", "Sink", "WriterPart", "numbered", "open_writer", "probe"]

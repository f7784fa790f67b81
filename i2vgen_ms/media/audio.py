"""Audio: a clip's sound as the file holds it, to be carried into another file without being encoded again.

Given an open file and the part of it that is wanted; gives back its encoded packets. It knows neither frames nor what
the packets say. Whether they fit a video, and a kind of file, is decided here and nowhere else.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, BinaryIO

import av

from i2vgen_ms.cautions import caution
from i2vgen_ms.errors import I2VGenError
from i2vgen_ms.media.clip import Clip
from i2vgen_ms.media.demuxer import open_container
from i2vgen_ms.media.limits import Limits, words

# Sound and picture that are further apart than this are seen to be.
MOST_APART = Fraction(1, 20)

# What FFmpeg and today's players agree on, by the name's suffix: (FFmpeg's format, codecs).
CARRIED = {
    ".mp4": ("mp4", ("aac", "mp3", "opus", "ac3", "eac3", "alac", "flac")),
    ".mkv": ("matroska", ("aac", "mp3", "opus", "vorbis", "ac3", "eac3", "alac", "flac", "pcm_s16le", "pcm_s24le")),
    ".webm": ("webm", ("opus", "vorbis")),
}


class AudioWarning(UserWarning):
    """A clip's sound is left out; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """Encoded sound; `start` and `duration` in the audio's time base, 0 being the first frame's time."""

    data: bytes = field(repr=False)
    start: int
    duration: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio:
    """A sound track's packets over the time of a clip's frames, and what a decoder has to know.

    `codec` as FFmpeg names it. `template`: a small Matroska file whose only track has the same settings.
    The first packet may start before 0 (a decoder needs it to get going), the last may end after `seconds`, the
    clip's length.
    """

    codec: str
    time_base: Fraction
    seconds: Fraction
    template: bytes = field(repr=False)
    packets: tuple[Packet, ...] = field(repr=False)

    def add_to(self, container: Any) -> Any:
        """A new stream of an open output container, for packets of this sound."""
        with av.open(io.BytesIO(self.template), format="matroska") as template:
            return container.add_stream_from_template(template.streams.audio[0])

    def encoded(self, packet: Packet, stream: Any, until: Fraction | None = None) -> Any:
        """PyAV's packet for `stream`, which `add_to` gave; cut when it ends after `until` seconds."""
        copy = av.Packet(packet.data)
        copy.stream, copy.time_base = stream, self.time_base
        copy.pts = copy.dts = packet.start
        room = packet.duration if until is None else max(1, round(until / self.time_base) - packet.start)
        copy.duration = min(packet.duration, room)
        return copy


def read_audio(file: BinaryIO, name: str, *, start: Fraction, seconds: Fraction, limits: Limits) -> Audio | str:
    """The first sound track of `file` from `start`, the time of its first frame, for `seconds`; or why there is none.

    The file is read once more from its beginning. Nothing that is wrong with the sound raises: a clip is of use
    without it.
    """
    end = time.monotonic() + limits.decode_seconds
    try:
        with open_container(file, name, limits) as container:
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                return "its codec is unknown"
            base, size = stream.time_base, 0
            packets: list[Packet] = []
            shift = round(start / base)
            for packet in container.demux(stream):
                if time.monotonic() > end:
                    return f"reading it took more than {limits.decode_seconds:g} seconds"
                at = packet.pts if packet.pts is not None else packet.dts
                if packet.size == 0 or at is None:
                    continue
                begun = at - shift
                if begun >= seconds / base:
                    break
                if packets and begun <= packets[-1].start:
                    return "its times run backwards"
                if begun <= 0:  # the last one before 0 is what a decoder gets going with
                    packets = packets[-1:]
                packets.append(Packet(data=bytes(packet), start=begun, duration=packet.duration or 0))
                size = packet.size + (size if begun > 0 else sum(len(early.data) for early in packets[:-1]))
                if size > limits.max_audio_bytes:
                    return f"it takes more than {words(limits.max_audio_bytes)}"
            if not packets or packets[-1].start + packets[-1].duration < 0:
                return "none of it belongs to the frames that are read"
            return Audio(
                codec=stream.codec_context.codec.canonical_name,
                time_base=base,
                seconds=seconds,
                template=_template(stream, packets[0]),
                packets=tuple(packets),
            )
    except I2VGenError as error:
        return str(error)
    except Exception as error:
        return f"it is damaged: {error}"


def audio_for(clip: Clip, *, frames: int, fps: float | Fraction) -> Audio | None:
    """The sound of `clip` for a video of `frames` frames at `fps` frames a second that shows the same frames.

    None when there is none, and with an AudioWarning when there is one that does not fit: the number of frames or the
    rate is another one, or the sound could not be read.
    """
    if not clip.has_audio:
        return None
    if clip.audio is None:
        problem = clip.audio_problem or "it was not read"
    elif frames != clip.count:
        problem = f"the video has {frames} frames, and the clip {clip.count}"
    elif abs(frames / Fraction(fps) - clip.audio.seconds) > MOST_APART:
        rate = float(frames / clip.audio.seconds)
        problem = f"the video has {float(fps):g} frames a second, and the clip {rate:g}; fps='source' keeps both"
    else:
        return clip.audio
    leave_out(problem, stacklevel=3)
    return None


def leave_out(problem: str, *, stacklevel: int) -> None:
    """Warns; `stacklevel` as in `warnings.warn`."""
    caution(f"the sound is left out: {problem}", AudioWarning, stacklevel=stacklevel)


def misfit(audio: Audio, suffix: str) -> str:
    """Why files of this suffix (such as '.mp4') cannot hold the sound; '' when they can."""
    if suffix not in CARRIED:
        return f"{suffix or 'a folder of pictures'} holds none; {', '.join(CARRIED)} do"
    form, codecs = CARRIED[suffix]
    if audio.codec not in codecs:
        others = [other for other, (_, known) in CARRIED.items() if audio.codec in known]
        hint = f"; use {' or '.join(others)}" if others else ""
        return f"{suffix} holds {', '.join(codecs)}, and not {audio.codec}{hint}"
    try:
        # Tried now, as it stands: found out at the end of the work, it would take the video with it.
        with av.open(io.BytesIO(), "w", format=form) as container:
            stream = audio.add_to(container)
            for packet in audio.packets:
                container.mux(audio.encoded(packet, stream))
    except Exception as error:
        return f"it cannot be written to {suffix}: {error}"
    return ""


def _template(stream: Any, packet: Packet) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        copy = av.Packet(packet.data)
        copy.stream, copy.time_base = container.add_stream_from_template(stream), stream.time_base
        copy.pts = copy.dts = 0
        copy.duration = packet.duration
        container.mux(copy)
    return file.getvalue()

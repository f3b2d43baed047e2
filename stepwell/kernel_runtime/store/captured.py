"""What steps printed and displayed, signed: it is shown again as it was only where our own key recorded it.

A last row of the kind ``signature`` seals the rows of a step. Text of others keeps its colours and nothing else: it cannot move the cursor, set
the title of a window or reverse a line. Of their displays the plain text and pictures of pixels are shown, not HTML, SVG or JavaScript.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from stepwell.kernel_runtime.errors import StoreError
from stepwell.kernel_runtime.records.runs import CapturedOutput
from stepwell.kernel_runtime.store.catalog.schema import output_rows
from stepwell.kernel_runtime.store.signing import Signer
from stepwell.kernel_runtime.text import coloured

_SIGNATURE: Literal["signature"] = "signature"
_PIXELS = ("image/png", "image/jpeg", "image/gif", "image/webp")


def sealed(outputs: Sequence[CapturedOutput], signer: Signer) -> Sequence[CapturedOutput]:
    """Return outputs with their signature behind them; as they are where there is no key, or nothing to sign."""
    if not outputs:
        return outputs
    try:
        signature = signer.sign(_signed(outputs))
    except StoreError:
        return outputs
    return (*outputs, CapturedOutput(_SIGNATURE, text=signature.hex()))


def shown(outputs: Sequence[CapturedOutput], signer: Signer) -> tuple[CapturedOutput, ...]:
    """Return recorded outputs as they are shown again: unchanged if our key signed exactly these."""
    given = tuple(each for each in outputs if each.kind != _SIGNATURE)
    seals = [each.text for each in outputs if each.kind == _SIGNATURE]
    if not given or (len(seals) == 1 and _is_ours(given, seals[0], signer)):
        return given
    return tuple(_harmless(each) for each in given)


def _is_ours(outputs: Sequence[CapturedOutput], seal: str, signer: Signer) -> bool:
    try:
        return signer.verify(bytes.fromhex(seal), _signed(outputs))
    except (ValueError, StoreError):
        return False


def _signed(outputs: Sequence[CapturedOutput]) -> list[bytes]:
    return [
        (text or "").encode("utf-8", "surrogatepass") for row in output_rows("", "outputs", outputs) for text in row[1:]
    ]


def _harmless(output: CapturedOutput) -> CapturedOutput:
    data = {mime: value for mime, value in output.data.items() if mime in _PIXELS and isinstance(value, str)}
    plain = output.data.get("text/plain")
    if isinstance(plain, str):
        data["text/plain"] = coloured(plain)
    stream = output.stream if output.stream == "stderr" else "stdout"
    kind = output.kind if output.kind in {"stream", "display_data", "update_display_data", "clear_output"} else "stream"
    return replace(
        output,
        kind=kind,
        stream=stream if kind == "stream" else "",
        text=coloured(output.text or ""),
        data=data,
        metadata={},
    )

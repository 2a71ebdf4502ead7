"""Inputs that are settings rather than tensors: shapes, axes, bounds.

Newer operator sets pass many attributes as inputs. Where their value is known it counts as the attribute it
once was, so that a network hashes alike whichever way its exporter chose, and never as a weight.
"""

from __future__ import annotations

# For each operator the inputs (by index) that hold settings, and the attribute each one stands for. None: a
# shape or count that the shape of the output tells anyway; it may hold the batch, and is no attribute.
SETTINGS: dict[str, dict[int, str | None]] = {
    "Reshape": {1: None},
    "Expand": {1: None},
    "ConstantOfShape": {0: None},
    "Tile": {1: None},
    "Resize": {1: None, 2: None, 3: None},
    "Upsample": {1: None},
    "Slice": {1: "starts", 2: None, 3: "axes", 4: "steps"},
    "Split": {1: None},
    "SplitToSequence": {1: None},
    "SequenceAt": {1: "position"},
    "Unsqueeze": {1: "axes"},
    "Squeeze": {1: "axes"},
    "Pad": {1: "pads", 2: "value", 3: "axes"},
    "Clip": {1: "min", 2: "max"},
    "TopK": {1: "k"},
    "OneHot": {1: None},
    "Range": {0: None, 1: None, 2: None},
    "CumSum": {1: "axis"},
    "Trilu": {1: "k"},
    "Dropout": {1: None, 2: None},
    "BlackmanWindow": {0: None},
    "HannWindow": {0: None},
    "HammingWindow": {0: None},
    "CenterCropPad": {1: None},
    "RandomUniform": {0: None},
    "NonMaxSuppression": {2: None, 3: None, 4: None},
    **{
        f"Reduce{name}": {1: "axes"}
        for name in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
    },
}

# Attributes that say nothing once settings and shapes are known, or that hold the batch.
DROPPED_ATTRIBUTES: dict[str, frozenset[str]] = {
    "Slice": frozenset({"ends"}),
    "Split": frozenset({"split", "num_outputs"}),
    "Upsample": frozenset({"scales"}),
    "Dropout": frozenset({"ratio", "seed"}),
    "Reshape": frozenset({"allowzero"}),
}

# A running mean or variance, or the table of a quantisation, is no parameter: nothing trains it by gradient.
BUFFER_SLOTS: dict[str, frozenset[int]] = {"BatchNormalization": frozenset({3, 4})}

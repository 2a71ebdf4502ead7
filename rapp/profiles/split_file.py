"""The format of a split file, version 1, and what makes one valid.

    {"version": 1, "name": "unseen-network", "kind": "network", "seed": 0, "about": "...",
     "folds": [{"train": ["alexnet", ...], "test": ["vgg16", ...]}, ...]}

Kind `network` names networks; kind `family` too, with the `families` they belong to. Kind `rows` gives a
rule a fold, `hash` (a share of all points) or `columns` (whole SM partitions, quotas or batches).
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SPLIT_VERSION = 1

Name = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class NetworkFold(_Strict):
    """The networks to learn from, to stop by (may be none), and to test on; no network in two of them."""

    train: list[Name] = Field(min_length=1)
    validation: list[Name] = []
    test: list[Name] = Field(min_length=1)

    @model_validator(mode="after")
    def _once(self) -> NetworkFold:
        named = [*self.train, *self.validation, *self.test]
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} named more than once in one fold")
        return self


class Fractions(_Strict):
    """Shares of all points, each in [0, 1], together 1; train and test are not empty."""

    train: float = Field(gt=0, lt=1)
    validation: float = Field(ge=0, lt=1)
    test: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _whole(self) -> Fractions:
        total = self.train + self.validation + self.test
        if not math.isclose(total, 1.0, abs_tol=1e-9):
            raise ValueError(f"the fractions add up to {total:g}, not 1")
        return self


class HashFold(_Strict):
    """Points by the hash of (seed, network, batch, sm_pct, quota_pct): `rapp.profiles.splits.point_share`."""

    rule: Literal["hash"]
    seed: int = Field(ge=0)
    fractions: Fractions


class ColumnsFold(_Strict):
    """Every point with one of these values in this column is tested on; the others are learned from."""

    rule: Literal["columns"]
    column: Literal["sm_pct", "quota_pct", "batch"]
    test: list[float] = Field(min_length=1)

    @model_validator(mode="after")
    def _once(self) -> ColumnsFold:
        if len(set(self.test)) != len(self.test):
            raise ValueError("a value is named more than once")
        return self


class _SplitFile(_Strict):
    version: Literal[1]
    name: Name
    about: str = ""
    seed: int | None = None


def _check_networks(folds: list[NetworkFold]) -> None:
    sets = [{*fold.train, *fold.validation, *fold.test} for fold in folds]
    for number, names in enumerate(sets):
        if names != sets[0]:
            odd = ", ".join(sorted(names ^ sets[0]))
            raise ValueError(f"fold {number} and fold 0 are not over the same networks: {odd}")
    for (a, one), (b, other) in combinations(enumerate(folds), 2):
        shared = sorted(set(one.test) & set(other.test))
        if shared:
            raise ValueError(f"{', '.join(shared)} tested in fold {a} and in fold {b}")


class NetworkSplit(_SplitFile):
    """Cross-validation over networks."""

    kind: Literal["network"]
    folds: list[NetworkFold] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> NetworkSplit:
        _check_networks(self.folds)
        return self


class FamilySplit(_SplitFile):
    """Cross-validation over families of networks: none on two sides of a fold."""

    kind: Literal["family"]
    families: dict[Name, list[Name]] = Field(min_length=1)
    folds: list[NetworkFold] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> FamilySplit:
        _check_networks(self.folds)
        family_of = {name: family for family, names in self.families.items() for name in names}
        if len(family_of) != sum(map(len, self.families.values())):
            raise ValueError("a network is in two families")
        for number, fold in enumerate(self.folds):
            lost = sorted({*fold.train, *fold.validation, *fold.test} ^ set(family_of))
            if lost:
                raise ValueError(
                    f"fold {number} and the families are not over the same networks: {', '.join(lost)}"
                )
            sides = [{family_of[name] for name in side} for side in (fold.train, fold.validation, fold.test)]
            shared = sorted(set().union(*(a & b for a, b in combinations(sides, 2))))
            if shared:
                raise ValueError(f"fold {number} has the family {', '.join(shared)} on two sides")
        return self


class RowSplit(_SplitFile):
    """Points by a rule."""

    kind: Literal["rows"]
    folds: list[Annotated[HashFold | ColumnsFold, Field(discriminator="rule")]] = Field(min_length=1)


SplitFile = Annotated[NetworkSplit | FamilySplit | RowSplit, Field(discriminator="kind")]

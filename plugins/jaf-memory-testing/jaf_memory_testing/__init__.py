"""The conformance kit: what every provider promises, as plain pytest classes.

    from jaf_memory_testing import ProviderConformance, Target

    class TestMine(ProviderConformance):
        @pytest.fixture
        def target(self, tmp_path):
            return Target(open=functools.partial(open_mine, tmp_path))

`docs/conformance.md` tells the rest. Needs the extra `testing`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{file.stem}" for file in Path(__file__).parent.glob("[!_]*.py")))

from jaf_memory_testing.backend_forms import FormChecks
from jaf_memory_testing.backends import BackendChecks, DriverChecks
from jaf_memory_testing.basic import AppendChecks, BasicChecks
from jaf_memory_testing.checks import Checks, needs, slow
from jaf_memory_testing.costs import CostChecks, TurnChecks
from jaf_memory_testing.damage import DamageChecks
from jaf_memory_testing.deadlines import CancellationChecks, DeadlineChecks
from jaf_memory_testing.deletion import DeletionChecks
from jaf_memory_testing.differential import DifferentialChecks
from jaf_memory_testing.erasure import ErasureChecks, FinalChecks, RemainsChecks
from jaf_memory_testing.errors import ErrorChecks, LimitChecks, SettingsChecks
from jaf_memory_testing.expiry import ExpiryChecks, ReadChecks
from jaf_memory_testing.fields import FieldChecks
from jaf_memory_testing.forks import BranchChecks
from jaf_memory_testing.iteration import IterationChecks, StatisticsChecks
from jaf_memory_testing.leases import LeaseChecks
from jaf_memory_testing.lifecycle import LifecycleChecks, LoopChecks, PersistenceChecks
from jaf_memory_testing.owners import LabelChecks, ScopeChecks
from jaf_memory_testing.pages import CapChecks, CutChecks, PageChecks
from jaf_memory_testing.query import QueryChecks, QueryPageChecks, TimeChecks
from jaf_memory_testing.races import ProcessChecks, RaceChecks
from jaf_memory_testing.search import SearchChecks
from jaf_memory_testing.state_machine import StateMachineChecks
from jaf_memory_testing.table import SixMethodTableChecks, TableChecks
from jaf_memory_testing.target import FEATURES, FourMethods, Store, Target
from jaf_memory_testing.transfer import ImportChecks, TransferChecks
from jaf_memory_testing.values import IdentifierChecks, ValueChecks
from jaf_memory_testing.versions import ActivityChecks, VersionChecks


class SixMethodConformance(BasicChecks, AppendChecks, ValueChecks, IdentifierChecks, SixMethodTableChecks):
    """What a class with just the six documented methods promises."""


class ProviderConformance(  # from basic to hostile: the report runs them in this order
    SixMethodConformance,
    BackendChecks,
    VersionChecks,
    LabelChecks,
    ScopeChecks,
    ErrorChecks,
    SettingsChecks,
    LimitChecks,
    PageChecks,
    CutChecks,
    DeletionChecks,
    CapChecks,
    QueryChecks,
    QueryPageChecks,
    TimeChecks,
    ActivityChecks,
    IterationChecks,
    SearchChecks,
    StatisticsChecks,
    TransferChecks,
    ImportChecks,
    ReadChecks,
    ExpiryChecks,
    BranchChecks,
    LeaseChecks,
    FieldChecks,
    TableChecks,
    DriverChecks,
    DamageChecks,
    PersistenceChecks,
    ErasureChecks,
    FinalChecks,
    RemainsChecks,
    FormChecks,
    DifferentialChecks,
    StateMachineChecks,
    LifecycleChecks,
    LoopChecks,
    CostChecks,
    TurnChecks,
    RaceChecks,
    CancellationChecks,
    ProcessChecks,
    DeadlineChecks,
):
    """What a provider over a `Backend` promises: everything."""


BRIEF: tuple[type[Checks], ...] = (BasicChecks, AppendChecks, ErasureChecks, DeadlineChecks)
"""What `slow(…, but=BRIEF)` still runs on a target that is a variant of another, and is asked in seconds."""

__all__ = [
    "BRIEF",
    "FEATURES",
    "ActivityChecks",
    "AppendChecks",
    "BackendChecks",
    "BasicChecks",
    "BranchChecks",
    "CancellationChecks",
    "CapChecks",
    "Checks",
    "CostChecks",
    "CutChecks",
    "DamageChecks",
    "DeadlineChecks",
    "DeletionChecks",
    "DifferentialChecks",
    "DriverChecks",
    "ErasureChecks",
    "ErrorChecks",
    "ExpiryChecks",
    "FieldChecks",
    "FinalChecks",
    "FormChecks",
    "FourMethods",
    "IdentifierChecks",
    "ImportChecks",
    "IterationChecks",
    "LabelChecks",
    "LeaseChecks",
    "LifecycleChecks",
    "LimitChecks",
    "LoopChecks",
    "PageChecks",
    "PersistenceChecks",
    "ProcessChecks",
    "ProviderConformance",
    "QueryChecks",
    "QueryPageChecks",
    "RaceChecks",
    "ReadChecks",
    "RemainsChecks",
    "ScopeChecks",
    "SearchChecks",
    "SettingsChecks",
    "SixMethodConformance",
    "SixMethodTableChecks",
    "StateMachineChecks",
    "StatisticsChecks",
    "Store",
    "TableChecks",
    "Target",
    "TimeChecks",
    "TransferChecks",
    "TurnChecks",
    "ValueChecks",
    "VersionChecks",
    "needs",
    "slow",
]

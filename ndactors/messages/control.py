"""What a process of ours asks the daemon over the control socket: any query, by the name of who should answer."""

from __future__ import annotations

from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from .. import errors
from ..core.model import User
from ..errors import ConfigurationError, MissingBlobs, NextDeployError, Problem
from ..runtime.tree import GetTree, RestartActor
from .access import CreatedToken, CreateToken, GetTokens, RevokeToken, TokenIdentity, TokenView, VerifyToken
from .alerts import (
    AcknowledgeAlert,
    AddSilence,
    AlertView,
    ChannelResult,
    ChannelsView,
    EndSilence,
    GetAlerts,
    GetChannels,
    GetSigningKey,
    GetSilences,
    Silence,
    TestChannels,
)
from .base import Message, Value
from .config import (
    ConfigHistory,
    ConfigView,
    ConfigWritten,
    GetConfig,
    GetConfigHistory,
    PutConfig,
    RollbackConfig,
)
from .jobs import GetJobs, JobView
from .logs import GetLogReport, GetLogs, LogPage, LogsReport
from .metrics import GetMetricNames, GetMetrics, MetricHistory, MetricName
from .operations import (
    BeginOperation,
    CancelOperation,
    DeployTotals,
    GetDeploys,
    GetOperation,
    GetOperations,
    GetRevisions,
    Operation,
    OperationPage,
    RevisionPage,
)
from .projects import AppPlan, DeployProject, GetPlan, PlanProject, ProjectAccepted, ProjectPlan, RemoveApp
from .queries import (
    REPLIES,
    GetApps,
    GetDaemon,
    GetEdge,
    GetEdgeTotals,
    GetEngine,
    GetEvents,
    GetHost,
    GetReadiness,
    SetMaintenance,
)
from .records import GetRequests, RequestPage
from .secrets import ChangeSecrets, EnvView, GetEnv, GetSecretNames, RotateSecrets
from .sources import GetSource, SourceView
from .stats import GetPorts, GetUsage


class WebSettings(Value, frozen=True, kw_only=True):
    """What the web needs to know who may do what. ``key`` signs sessions and tokens."""

    users: tuple[User, ...]
    key: bytes
    metrics_open: bool
    project: str
    environment: str
    allowed_origins: tuple[str, ...] = ()
    """Other sites whose pages may open WebSockets."""


class GetWebSettings(Message, frozen=True, kw_only=True):
    """Answers ``WebSettings``. Hashes and key travel over the control socket only, which its mode protects."""


Askable = (
    GetTree
    | RestartActor
    | AcknowledgeAlert
    | AddSilence
    | BeginOperation
    | CancelOperation
    | ChangeSecrets
    | CreateToken
    | DeployProject
    | EndSilence
    | GetAlerts
    | GetApps
    | GetChannels
    | GetConfig
    | GetConfigHistory
    | GetDaemon
    | GetDeploys
    | GetEdge
    | GetEdgeTotals
    | GetEngine
    | GetEnv
    | GetEvents
    | GetHost
    | GetJobs
    | GetLogReport
    | GetLogs
    | GetMetricNames
    | GetMetrics
    | GetOperation
    | GetOperations
    | GetPlan
    | GetPorts
    | GetReadiness
    | GetRequests
    | GetRevisions
    | GetSecretNames
    | GetSigningKey
    | GetSilences
    | GetSource
    | GetTokens
    | GetUsage
    | GetWebSettings
    | PlanProject
    | PutConfig
    | RemoveApp
    | RevokeToken
    | RollbackConfig
    | RotateSecrets
    | SetMaintenance
    | TestChannels
    | VerifyToken
)
"""All that may be asked from outside the daemon."""

ANSWERS: dict[type, Any] = {
    **REPLIES,
    AcknowledgeAlert: AlertView,
    AddSilence: Silence,
    BeginOperation: str,
    CancelOperation: None,
    ChangeSecrets: None,
    CreateToken: CreatedToken,
    DeployProject: ProjectAccepted,
    EndSilence: Silence,
    GetAlerts: tuple[AlertView, ...],
    GetChannels: ChannelsView,
    GetConfig: ConfigView,
    GetConfigHistory: ConfigHistory,
    GetDeploys: tuple[DeployTotals, ...],
    GetEnv: EnvView,
    GetJobs: tuple[JobView, ...],
    GetLogReport: LogsReport | None,
    GetLogs: LogPage,
    GetMetricNames: tuple[MetricName, ...],
    GetMetrics: MetricHistory,
    GetOperation: Operation,
    GetOperations: OperationPage,
    GetPlan: tuple[AppPlan, ...],
    GetRequests: RequestPage,
    GetRevisions: RevisionPage,
    GetSecretNames: dict[str, str],
    GetSigningKey: str,
    GetSilences: tuple[Silence, ...],
    GetSource: SourceView,
    GetTokens: tuple[TokenView, ...],
    GetWebSettings: WebSettings,
    PlanProject: ProjectPlan,
    PutConfig: ConfigWritten,
    RemoveApp: None,
    RestartActor: None,
    RevokeToken: TokenView,
    RollbackConfig: ConfigWritten,
    RotateSecrets: int,
    SetMaintenance: None,
    TestChannels: tuple[ChannelResult, ...],
    VerifyToken: TokenIdentity,
}


class Ask(Message, frozen=True, kw_only=True):
    id: int
    to: str
    message: Askable


class Answer(Message, frozen=True, kw_only=True):
    """``body`` is the answer as MessagePack."""

    id: int
    body: Raw


class AskFailed(Message, frozen=True, kw_only=True):
    """``error`` is the name of one of the classes of ``ndactors.errors``; the last three are what some of them hold."""

    id: int
    error: str
    detail: str
    source: str = ""
    problems: tuple[Problem, ...] = ()
    digests: tuple[str, ...] = ()


def failure(id: int, error: NextDeployError) -> AskFailed:
    failed = AskFailed(id=id, error=type(error).__name__, detail=str(error))
    if isinstance(error, ConfigurationError):
        return replace(failed, source=error.source, problems=tuple(error.problems))
    return replace(failed, digests=tuple(error.digests)) if isinstance(error, MissingBlobs) else failed


def raised(failed: AskFailed) -> NextDeployError:
    """The error again, as it was."""
    if failed.error == ConfigurationError.__name__:
        return ConfigurationError(failed.source, list(failed.problems))
    if failed.error == MissingBlobs.__name__:
        return MissingBlobs(list(failed.digests))
    kind = getattr(errors, failed.error, None)
    known = isinstance(kind, type) and issubclass(kind, NextDeployError)
    error: NextDeployError = kind(failed.detail) if known and kind is not None else NextDeployError(failed.detail)
    return error

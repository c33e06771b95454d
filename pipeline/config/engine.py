"""Where shards are worked on: in the run's own process, or by workers on a Ray or Dask cluster."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class EngineSettings(BaseModel):
    """Who works on the shards; nothing here changes what comes out.

    In a config, `engine: ray` stands for `engine: {kind: ray}`.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["local", "ray", "dask"] = Field(
        "local", description="this process, or the workers of a Ray or Dask cluster"
    )
    address: str | None = Field(
        None,
        description="a cluster that stands already (ray: HOST:6379 or auto, dask: tcp://HOST:8786);"
        " without one, workers are started on this machine for the time of the run",
    )
    workers: int | None = Field(
        None, ge=1, description="workers to start; default one for each share of GPUs, else one"
    )
    cpus: int = Field(1, ge=1, description="processor cores that a worker claims")
    gpus: int | None = Field(
        None, ge=0, description="GPUs that a worker claims; default 1 where there are any, else 0"
    )

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, values: Any) -> Any:
        return {"kind": values} if isinstance(values, str) else values

    @model_validator(mode="after")
    def _fitting(self) -> EngineSettings:
        given = [name for name in ("address", "workers", "cpus", "gpus") if self._is_set(name)]
        if self.kind == "local" and given:
            raise ValueError(f"{given[0]} is for the kinds ray and dask; got kind 'local'")
        if self.address is not None and self.workers is not None:
            raise ValueError(
                f"workers are started only where no address is given; got {self.workers} and"
                f" {self.address!r}"
            )
        return self

    def _is_set(self, name: str) -> bool:
        return getattr(self, name) != type(self).model_fields[name].default

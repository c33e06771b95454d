"""A run from start to end as plain functions: what is pending, doing it, and tidying up after."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from kb.embeddings import MODALITIES, Modality
from kb.knowledge_base import KnowledgeBase, Pairs
from kb.storage import DamagedKnowledgeBase, read_manifest
from pipeline.build import (
    Progress,
    build,
    embedded_pairs,
    quiet,
    scan,
    scan_externals,
)
from pipeline.catalog import Catalog, digest
from pipeline.completion import RowsDone, ShardPlan, complete_shard
from pipeline.config import Config
from pipeline.errors import ConfigError, RunFailed, RunLocked
from pipeline.export import Exported, ExportSettings, export
from pipeline.images import UndecodableImage, decode
from pipeline.ledger import (
    Entry,
    Ledger,
    Manifest,
    count_outcomes,
    part_name,
    shard_name,
    sync_folder,
    write_whole,
)
from pipeline.review import Review, Reviewed, Verdict, made_halves, read_marks
from pipeline.schema import ROW_GROUP_ROWS, SCHEMA_VERSION, completed_schema
from pipeline.workbench import INTERNAL, Workbench

logger = logging.getLogger(__name__)


@dataclass
class Plan:
    """What a run would do.

    Attributes
    ----------
    shards : list of ShardPlan
    pending : dict
        Rows to be done by what is missing: "image", "text", and "none" for those that pass through.
    done : int
        Rows that stand already.
    held_back : int
        Pending rows that `limit` leaves for another run.
    deleted : int
        Rows of the completed dataset that are no longer in the input.
    """

    shards: list[ShardPlan] = field(default_factory=list)
    pending: dict[str, int] = field(default_factory=dict)
    done: int = 0
    held_back: int = 0
    deleted: int = 0


class Job:
    """A run of one config.

    Parameters
    ----------
    config : Config

    Examples
    --------
    >>> job = Job(load_config("dmc.yaml"))      # doctest: +SKIP
    >>> with job.lock():                         # doctest: +SKIP
    ...     job.build()
    ...     job.complete()
    >>> job.completed().to_table()               # doctest: +SKIP
    """

    def __init__(self, config: Config, progress: Progress = quiet) -> None:
        self.config = config
        self.folder = config.folder
        self.bench = Workbench(config)
        self.progress = progress
        self.times: list[dict[str, Any]] = []
        self.run_id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:6]}"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run's folder; the lock goes with the process, however it ends.

        Raises
        ------
        RunLocked
            Another process holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "lock"
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.read(handle, 200).decode(errors="replace").strip() or "unknown"
                raise RunLocked(f"{self.folder}: another run holds the lock ({holder})") from None
            os.ftruncate(handle, 0)
            os.write(handle, f"pid {os.getpid()} run {self.run_id}\n".encode())
            yield
        finally:
            os.close(handle)

    @cached_property
    def catalog(self) -> Catalog:
        """The rows of the dataset, scanned once a job."""
        return scan(self.bench, self.progress)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.folder).load()

    @cached_property
    def review(self) -> Review:
        """A person's verdicts on what was generated."""
        return Review(self.folder).load()

    def build(self) -> bool:
        """Build the knowledge base where it is stale; whether it was."""
        return build(self.bench, self.catalog, self.progress)

    @property
    def knowledge_base(self) -> KnowledgeBase:
        """The knowledge base of the last build; a damaged one is built again."""
        try:
            return self.bench.knowledge_base
        except DamagedKnowledgeBase as error:
            logger.warning("building the knowledge base again: %s", error)
            build(self.bench, self.catalog, self.progress, anew=True)
            return self.bench.knowledge_base

    def pairs(self) -> dict[str, Pairs]:
        """The complete pairs of every source with their raw embeddings, the dataset's own first."""
        catalogs = {INTERNAL: self.catalog} | scan_externals(self.bench)
        return {name: embedded_pairs(self.bench, name, found) for name, found in catalogs.items()}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Take the time of a step, for the summary."""
        started = time.monotonic()
        yield
        self.times.append({"step": name, "seconds": round(time.monotonic() - started, 2)})

    def settings_digests(self) -> dict[str, str]:
        """Per missing half a digest of the settings and revisions that its rows depend on."""
        config, bench = self.config, self.bench
        knowledge = config.knowledge_base.identity()
        common: dict[str, Any] = {
            "schema": SCHEMA_VERSION,
            "seed": config.run.seed,
            "encoder": bench.identity(config.encoder_part()),
            "knowledge": knowledge,
            "generation": config.generation.model_dump(mode="json"),
        }
        if config.run.on_kb_change == "redo":
            common["kb"] = read_manifest(bench.knowledge_base_folder)["version"]
        scoring = config.selection.identity()
        digests: dict[str, str] = {}
        for missing in MODALITIES:
            half = "caption" if missing == "text" else "image"
            own = {
                "generator": bench.identity(config.generator_part(missing)),
                "selection": scoring.get(half, scoring),
            }
            digests[missing] = digest(json.dumps(common | own, sort_keys=True, default=str))
        return digests

    def desired(self) -> tuple[list[Entry], list[tuple[int, int]]]:
        """For every row of the input the entry that the ledger should hold, and its place."""
        settings = self.settings_digests()
        table = self.catalog.table
        names = ("id", "image", "text", "extra", "missing", "file", "position")
        entries, places = [], []
        for row_id, image, text, extra, missing, file, position in zip(
            *(table[name].to_pylist() for name in names), strict=True
        ):
            content = digest(image or "", text or "", extra or "")
            matter = settings[missing] if missing in settings else str(SCHEMA_VERSION)
            first_attempt = self.review.first_attempt(row_id, content)
            if first_attempt > 1:
                matter = digest(matter, str(first_attempt))
            entries.append(Entry(row_id, digest(row_id, content, matter), content, "", missing))
            places.append((file, position))
        return entries, places

    def _reasons(self) -> list[str | None]:
        """Why a half is missing, for every row of the input."""
        table = self.catalog.table
        columns = (table[name].to_pylist() for name in ("missing", "image_reason", "text_reason"))
        return [
            {"image": image, "text": text, "both": f"image: {image}; text: {text}"}.get(missing)
            for missing, image, text in zip(*columns, strict=True)
        ]

    def plan(self, limit: int | None = None, retry_failed: bool = False) -> Plan:
        """Which rows are pending, in shards of one kind each.

        Parameters
        ----------
        limit
            Most rows that are completed; rows with both halves always pass.
        retry_failed
            Try rows again that ended in an error.

        Raises
        ------
        RunFailed
            More rows vanished from the input than `run.max_deleted_share` allows.
        """
        latest = self.ledger.latest()
        entries, places = self.desired()
        reasons = self._reasons()
        plan = Plan()
        waiting: dict[str, list[int]] = {"none": [], "text": [], "image": []}
        for number, entry in enumerate(entries):
            standing = latest.get(entry.id)
            if standing is not None and self._stands(standing[1], entry, retry_failed):
                plan.done += 1
            else:
                waiting[entry.missing if entry.missing in MODALITIES else "none"].append(number)
        plan.deleted = len(latest.keys() - {entry.id for entry in entries})
        if latest and plan.deleted > self.config.run.max_deleted_share * len(latest):
            raise RunFailed(
                f"{plan.deleted} of {len(latest)} rows vanished from the input, more than"
                f" run.max_deleted_share {self.config.run.max_deleted_share:g} allows; if that is"
                " meant, raise it for this run"
            )
        room = limit
        number = self.ledger.next_number()
        for kind, rows in waiting.items():
            plan.pending[kind] = len(rows)
            if kind != "none" and room is not None:
                plan.held_back += max(0, len(rows) - room)
                rows = rows[:room]
                room -= len(rows)
            missing = None if kind == "none" else cast(Modality, kind)
            for start in range(0, len(rows), self.config.run.shard_size):
                part = rows[start : start + self.config.run.shard_size]
                plan.shards.append(
                    ShardPlan(
                        number,
                        missing,
                        tuple(places[row] for row in part),
                        tuple(entries[row] for row in part),
                        tuple(reasons[row] for row in part),
                        tuple(
                            self.review.first_attempt(entries[row].id, entries[row].content)
                            for row in part
                        ),
                        self.run_id,
                    )
                )
                number += 1
        return plan

    def _stands(self, standing: Entry, entry: Entry, retry_failed: bool) -> bool:
        """Whether what the ledger holds of a row is what it should hold."""
        if standing.key == entry.key:
            return not (retry_failed and standing.status == "failed")
        return (
            standing.status == "completed"
            and standing.content == entry.content
            and self.review.accepted(entry.id, entry.content)
        )

    def begin(self) -> None:
        """Lay the resolved settings beside the output and clear debris. Needs the lock."""
        for name in ("completed", "ledger"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        resolved = self.config.resolved()
        path = self.folder / "config.yaml"
        if not path.is_file() or path.read_text(encoding="utf-8") != resolved:
            write_whole(path, resolved)
        self.ledger.sweep()

    def complete_shard(self, plan: ShardPlan, rows_done: RowsDone | None = None) -> Manifest:
        """Do one shard; see `pipeline.completion.complete_shard`."""
        manifest = complete_shard(self.bench, plan, rows_done)
        self.ledger.manifests[manifest.shard] = manifest
        return manifest

    def finish(self) -> dict[str, Any]:
        """Drop rows that no longer count from the completed dataset, and sum up.

        A row leaves when its id is gone from the input, when a newer shard holds it, or when its
        observed content is another now. What was generated for it moves to `history/`.

        Returns
        -------
        dict
            `rewritten` (parts that lost rows), `outcomes` (rows by status), `by_missing` (outcomes by missing half), `rows`, `run_id`,
            `finished` (time in UTC), `times` (seconds of each step).
        """
        self.bench.close_generator()
        self.__dict__.pop("ledger", None)
        contents = {entry.id: entry.content for entry in self.desired()[0]}
        latest = self.ledger.latest()
        rewritten = 0
        for name in sorted(self.ledger.manifests):
            manifest = self.ledger.manifests[name]
            alive = [
                latest[entry.id][0] == name and contents.get(entry.id) == entry.content
                for entry in manifest.entries
            ]
            if not all(alive):
                self._rewrite(manifest, alive)
                rewritten += 1
        self.ledger.sweep()
        entries = [entry for m in self.ledger.manifests.values() for entry in m.entries]
        groups: dict[str, Counter[str]] = {}
        for entry in entries:
            groups.setdefault(entry.missing or "none", Counter())[entry.status] += 1
        return {
            "run_id": self.run_id,
            "rows": len(entries),
            "input_rows": len(self.catalog),
            "rewritten": rewritten,
            "outcomes": count_outcomes(entries),
            "by_missing": {name: dict(counts) for name, counts in sorted(groups.items())},
            "finished": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            "times": list(self.times),
            "completed": str(self.ledger.parts),
        }

    def _rewrite(self, manifest: Manifest, alive: list[bool]) -> None:
        """Put a part's living rows into a new part; keep dead generated rows in the history."""
        table = pq.read_table(self.ledger.parts / manifest.part)
        mask = pa.array(alive)
        dead = table.filter(pa.array([not a for a in alive]))
        dead = dead.filter(pa.compute.equal(dead["status"], "completed"))
        if len(dead):
            path = (
                self.folder
                / "history"
                / f"{manifest.part.removesuffix('.parquet')}-{manifest.run_id}.parquet"
            )
            _write_part(path, dead)
        number = self.ledger.next_number()
        entries = [entry for entry, lives in zip(manifest.entries, alive, strict=True) if lives]
        path = self.ledger.parts / part_name(number)
        _write_part(path, table.filter(mask))
        self.ledger.commit(
            Manifest(
                shard_name(number),
                path.name,
                path.stat().st_size,
                manifest.run_id,
                manifest.kb_version,
                entries,
                [*manifest.replaces, manifest.shard],
            )
        )

    def complete(
        self,
        limit: int | None = None,
        retry_failed: bool = False,
        rows_done: RowsDone | None = None,
    ) -> Mapping[str, Any]:
        """Complete what is pending in this process, without Prefect, and sum up."""
        self.begin()
        plan = self.plan(limit, retry_failed)
        if any(shard.missing for shard in plan.shards):
            self.knowledge_base  # noqa: B018 - found damaged now rather than in a shard
        for shard in plan.shards:
            self.complete_shard(shard, rows_done)
        return self.finish()

    def present(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Keep the summary of a run, export and write its report; the summary with their places.

        A run that changed nothing leaves both as they are.
        """
        page = self.folder / "report" / "index.html"
        changed = summary.get("built") or summary.get("done_now") or summary["rewritten"]
        if changed or not page.is_file():
            write_whole(self.folder / "summary.json", json.dumps(summary, indent=1))
            for settings in self.config.export:
                self.export(settings)
            self.report()
        exports = {s.format: str(self.folder / "exports" / s.format) for s in self.config.export}
        return summary | {"report": str(page), "exports": exports}

    def export(self, settings: ExportSettings, folder: Path | None = None) -> Exported:
        """Write the completed dataset in a consumer's layout; see `pipeline.export.export`.

        Parameters
        ----------
        settings
        folder
            Default `exports/FORMAT` in the run's folder.

        Raises
        ------
        ConfigError
            Nothing was completed yet, or what `export` refuses.
        """
        self._check_completed()
        place = folder or self.folder / "exports" / settings.format
        return export(self.completed(), place, settings, self.config.name, self.verdicts())

    def verdicts(self) -> dict[str, Verdict]:
        """A person's verdicts by id, of rows whose observed half is as it was."""
        return self.review.standing({row: e for row, (_, e) in self.ledger.latest().items()})

    def take_review(self, marks: Path) -> Reviewed:
        """Keep the marks of a report, and show them in it; needs the lock.

        Rejected rows are pending then; accepted ones stay, whatever becomes of the settings.

        Raises
        ------
        ConfigError
            Nothing was completed yet, the marks are not of this run, or none of them counts.
        """
        self._check_completed()
        read = read_marks(marks, self.config.name)
        made = made_halves(self.completed(), [mark.id for mark in read.marks])
        standing = {row: entry for row, (_, entry) in self.ledger.latest().items()}
        result = self.review.add(read, standing, made)
        if result.accepted or result.rejected:
            self.review.save()
            self.report()
        elif not result.known:
            raise ConfigError(f"{marks}: no mark counts: {result.told()}")
        return result

    def _check_completed(self) -> None:
        if not any((self.folder / "completed").glob("part-*.parquet")):
            raise ConfigError(
                f"{self.folder} holds no completed dataset; first: rag4dmc run CONFIG"
            )

    def report(self) -> Path:
        """Write the report page of the completed dataset; its path.

        Raises
        ------
        ConfigError
            Nothing was completed yet.
        """
        from pipeline.report.run import read_summary, report_run

        self._check_completed()
        return report_run(self, read_summary(self.folder))

    def search(
        self, image: Path | None = None, text: str | None = None, count: int = 5
    ) -> list[dict[str, Any]]:
        """What the knowledge base retrieves for an image file or a text, best first.

        Raises
        ------
        ConfigError
            There is no knowledge base yet, or the file isn't an image.
        """
        if not (self.bench.knowledge_base_folder / "manifest.json").is_file():
            raise ConfigError(f"{self.folder} holds no knowledge base; first: rag4dmc build CONFIG")
        modality: Modality = "text" if image is None else "image"
        item: Any = [text]
        if image is not None:
            try:
                item = decode(image.read_bytes(), self.config.dataset.max_pixels)
            except (OSError, UndecodableImage) as error:
                raise ConfigError(f"--image {image}: {error}") from None
        knowledge = self.knowledge_base
        query = self.bench.embed([item], modality)
        found = knowledge.retriever.retrieve(query, modality, m=count)[0]
        names = ("source", "licence", "text", "file", "position")
        return [
            {"id": hit.id, "intra": hit.intra, "cross": hit.cross, "score": hit.score}
            | {name: knowledge.pair(hit.row)[name] for name in names}
            for hit in found
        ]

    def completed(self) -> ds.Dataset:
        """The completed dataset; `.to_table()` reads it whole."""
        schema = completed_schema(self.bench.dataset.text_is_list, self.bench.dataset.extra_schema)
        files = sorted(str(path) for path in (self.folder / "completed").glob("part-*.parquet"))
        return ds.dataset(files, schema=schema, format="parquet")


def _write_part(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.tmp")
    pq.write_table(table, scratch, compression="zstd", row_group_size=ROW_GROUP_ROWS)
    with scratch.open("rb") as handle:
        os.fsync(handle.fileno())
    os.replace(scratch, path)
    sync_folder(path.parent)

"""The faults, each with the test that must find it."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

FENCING = "tests/service/worker/test_fencing.py"
WARM = "tests/service/worker/test_warm.py"
TOY = "tests/service/worker/test_toy_kind.py"
LATE = f"{FENCING}::test_a_late_write_is_refused_and_changes_nothing"
LIFECYCLE = "tests/service/runs/test_lifecycle.py"
METRICS = "tests/service/runs/test_metrics.py"
RESUME = "tests/models/training/test_resume.py"
EXACT = f"{RESUME}::test_a_run_stopped_anywhere_ends_with_the_very_same_file"
CHECKPOINT = "tests/models/test_checkpoint.py"
DURABLE = "tests/service/storage/test_durability.py"
PROOFS = "tests/service/registry/test_proofs.py"
IDEMPOTENT = "tests/service/http/test_idempotency.py"
SYNCED = f"{DURABLE}::test_a_file_is_synced_before_it_has_its_name_and_its_folder_after"


@dataclass(frozen=True)
class Mutant:
    """One fault: in `file`, `old` becomes `new`; `test` must then fail."""

    name: str
    file: str
    old: str
    new: str
    test: str


MUTANTS = (
    # ---- fences -------------------------------------------------------------------------------
    Mutant(
        "the fence does not look at the attempt",
        "service/jobs/queue.py",
        '.where(table.id == bindparam("held"), table.attempt == number, table.state.in_(OWNED))\n'
        "        .values(attempt=number)",
        '.where(table.id == bindparam("held"), table.state.in_(OWNED))\n'
        "        .values(owner=table.owner)",
        LATE,
    ),
    Mutant(
        "the fence does not look at the state",
        "service/jobs/queue.py",
        "table.attempt == number, table.state.in_(OWNED))\n        .values(attempt=number)",
        "table.attempt == number)\n        .values(attempt=number)",
        f"{FENCING}::test_an_owner_whose_run_has_ended_is_refused",
    ),
    Mutant(
        "metric rows are not fenced",
        "service/runs/metrics.py",
        "    run = queue.hold(session, Run, run_id, attempt)\n    fresh =",
        "    run = session.get_one(Run, run_id)\n    fresh =",
        f"{LATE}[sqlite-metric rows]",
    ),
    Mutant(
        "checkpoints are not fenced",
        "service/runs/lifecycle.py",
        "    run = queue.hold(session, Run, run_id, attempt)\n    if checkpoint.metric_seq",
        "    run = get(session, run_id)\n    if checkpoint.metric_seq",
        f"{LATE}[sqlite-a checkpoint]",
    ),
    Mutant(
        "the log is not fenced",
        "service/runs/lifecycle.py",
        "    run = queue.hold(session, Run, run_id, attempt)\n    events.append(",
        "    run = get(session, run_id)\n    events.append(",
        f"{LATE}[sqlite-a line of the log]",
    ),
    Mutant(
        "the start is not fenced",
        "service/jobs/life.py",
        '    job = queue.hold(session, table, job_id, attempt)\n    values["started_at"]',
        '    job = get(session, table, job_id)\n    values["started_at"]',
        f"{LATE}[sqlite-the start]",
    ),
    Mutant(
        "a claim is no new attempt",
        "service/jobs/queue.py",
        "            attempt=table.attempt + 1,\n",
        "",
        f"{LIFECYCLE}::test_a_claim_starts_a_new_attempt",
    ),
    Mutant(
        "chunks of predictions are not fenced",
        "service/batch/lifecycle.py",
        "    job = queue.hold(session, BatchPrediction, job_id, attempt)\n    last =",
        "    job = life.get(session, BatchPrediction, job_id)\n    last =",
        "tests/service/batch/test_lifecycle.py"
        "::test_a_late_write_is_refused_and_changes_nothing[sqlite-a chunk]",
    ),
    Mutant(
        "a chunk that was sent twice is stored twice",
        "service/batch/lifecycle.py",
        "    if chunk.number == done + 1:",
        "    if True:",
        "tests/service/batch/test_lifecycle.py"
        "::test_a_chunk_whose_commit_was_not_heard_of_is_stored_once",
    ),
    # ---- proofs -------------------------------------------------------------------------------
    Mutant(
        "an alias does not ask for a proof",
        "service/registry/versions.py",
        "    for number in sorted(numbers):\n",
        "    for number in sorted(found.keys() - numbers):\n",
        f"{PROOFS}::test_no_alias_points_to_what_is_not_proved_yet",
    ),
    Mutant(
        "a canary needs no proof",
        "service/registry/aliases.py",
        "{self.version} if self.canary_version is None else {self.version, self.canary_version}",
        "{self.version}",
        f"{PROOFS}::test_a_canary_must_be_proved_and_a_shadow_need_not",
    ),
    Mutant(
        "a proof that failed has passed",
        "service/registry/versions.py",
        'return "passed" if proof.state == "succeeded" else "failed"',
        'return "passed"',
        f"{PROOFS}::test_no_alias_points_to_what_has_failed",
    ),
    Mutant(
        "a difference of a hundredth is none",
        "models/export/card.py",
        "TOLERANCE = 1e-5",
        "TOLERANCE = 1e-2",
        "tests/service/proofs/test_ways.py::test_a_way_that_is_off_by_a_thousandth_is_found",
    ),
    # ---- leases -------------------------------------------------------------------------------
    Mutant(
        "a beat renews what another owner holds",
        "service/jobs/queue.py",
        "            .where(mine, table.owner == owner, table.state.in_(OWNED))",
        "            .where(mine, table.state.in_(OWNED))",
        f"{LIFECYCLE}::test_a_beat_of_a_stranger_renews_nothing",
    ),
    Mutant(
        "a rescue does not wait for the lease to end",
        "service/jobs/queue.py",
        "        .where(_is_expired(table))\n        .values(owner=None",
        "        .values(owner=None",
        f"{LIFECYCLE}::test_a_beat_keeps_the_lease",
    ),
    Mutant(
        "a lease of an earlier boot still counts",
        "service/jobs/queue.py",
        "(table.lease_expires < NOW, table.boot_id != BOOT)",
        "(table.lease_expires < NOW)",
        f"{LIFECYCLE}::test_a_lease_of_an_earlier_boot_is_void",
    ),
    # ---- curves -------------------------------------------------------------------------------
    Mutant(
        "a claim does not replace the rows after its checkpoint",
        "service/runs/lifecycle.py",
        "    metrics.rewind(session, run, covered_seq(run.id, checkpoint), step)\n",
        "",
        f"{METRICS}::test_a_resumed_attempt_replaces_the_rows_after_its_checkpoint",
    ),
    Mutant(
        "the replaced rows stay live",
        "service/runs/metrics.py",
        "        .values(superseded_by=run.attempt)",
        "        .values(superseded_by=None)",
        f"{METRICS}::test_a_resumed_attempt_replaces_the_rows_after_its_checkpoint",
    ),
    Mutant(
        "a gap in the rows is stored",
        "service/runs/metrics.py",
        '        if fresh[0]["seq"] != run.metric_seq + 1 or fresh[-1]["seq"] != last:',
        "        if False:",
        f"{METRICS}::test_a_gap_is_refused",
    ),
    Mutant(
        "a row that was sent twice is stored twice",
        "service/runs/metrics.py",
        '    fresh = [row for row in rows if row["seq"] > run.metric_seq]',
        "    fresh = list(rows)",
        f"{METRICS}::test_rows_whose_commit_was_not_heard_of_are_stored_once",
    ),
    # ---- checkpoints and blobs ----------------------------------------------------------------
    Mutant(
        "the tensors of a checkpoint may leave a gap",
        "models/checkpoint.py",
        "    if at != size:",
        "    if False:",
        f"{CHECKPOINT}::test_an_appended_byte_is_found",
    ),
    Mutant(
        "a blob is not synced",
        "service/storage/blobs.py",
        "        os.fsync(writer.fileno())\n",
        "",
        f"{SYNCED}[put_blob]",
    ),
    Mutant(
        "a blob is read without a look at its digest",
        "service/storage/blobs.py",
        "    if found.hexdigest() != sha256:",
        "    if False:",
        "tests/service/storage/test_blobs.py::test_a_flipped_bit_is_found_on_every_read",
    ),
    Mutant(
        "the collector does not look for pins",
        "service/storage/references.py",
        "        exists().where(BlobPin.sha256 == sha256, pinned),\n",
        "",
        "tests/service/storage/test_collection.py::test_bytes_of_a_writer_that_is_not_done_stay",
    ),
    Mutant(
        "the collector does not look for checkpoints",
        "service/runs/tables.py",
        "mapped_column(BlobDigest, index=True)",
        "mapped_column(String(64), index=True)",
        "tests/service/storage/test_collection.py::test_every_column_that_names_a_blob_keeps_it",
    ),
    Mutant(
        "the collector does not look for chunks",
        "service/batch/lifecycle.py",
        "mapped_column(BlobDigest, index=True)",
        "mapped_column(String(64), index=True)",
        "tests/service/storage/test_collection.py::test_every_column_that_names_a_blob_keeps_it",
    ),
    Mutant(
        "a reference is made without a pin",
        "service/storage/references.py",
        "    if not is_there or row_count(found) != 1:",
        "    if not is_there:",
        "tests/service/storage/test_collection.py::test_a_pin_of_somebody_else_is_no_pin_of_mine",
    ),
    Mutant(
        "a fall back from a damaged checkpoint keeps its rows",
        "service/runs/lifecycle.py",
        "    metrics.rewind(session, run, covered_seq(run_id, older), step)\n",
        "",
        "tests/service/runs/test_fallback.py"
        "::test_the_checkpoint_before_is_taken_and_the_curve_goes_back_to_it",
    ),
    # ---- exact resume -------------------------------------------------------------------------
    Mutant(
        "dropout begins again with its first masks",
        "models/training/snapshots.py",
        "        engine.step = state.step\n",
        "",
        EXACT,
    ),
    Mutant(
        "the loss of the unfinished epoch is forgotten",
        "models/training/snapshots.py",
        "            engine.totals[:] = self.tensors[REPORT][: len(engine.totals)]\n",
        "",
        EXACT,
    ),
    Mutant(
        "the best parameters are not restored",
        "models/training/snapshots.py",
        "            self._load(BEST, flat.named(training.best), training.device)\n",
        "",
        EXACT,
    ),
    Mutant(
        "every epoch has the order of the first",
        "models/data.py",
        "generator(seed, epoch).permutation(rows)",
        "generator(seed, 0).permutation(rows)",
        "tests/models/test_data.py::test_an_epoch_has_its_own_order_of_all_rows",
    ),
    Mutant(
        "steps that are made again are not compared",
        "service/runs/metrics.py",
        "        if was is not None and _differs(was, row):",
        "        if False:",
        "tests/service/runs/test_replays.py::test_a_single_bit_is_an_event_and_a_warning",
    ),
    # ---- life cycle ---------------------------------------------------------------------------
    Mutant(
        "a run that kills its process is tried for ever",
        "service/jobs/kind.py",
        'MOST: dict[DeathCode, int] = {"worker_lost": 3,',
        'MOST: dict[DeathCode, int] = {"worker_lost": 3_000_000,',
        f"{LIFECYCLE}::test_three_deaths_without_a_new_checkpoint_end_the_run",
    ),
    Mutant(
        "a checkpoint forgives nothing",
        "service/runs/lifecycle.py",
        "    run.crash_streak = 0\n",
        "",
        f"{LIFECYCLE}::test_a_checkpoint_forgives_earlier_deaths",
    ),
    Mutant(
        "the best checkpoint is dropped with the old ones",
        "service/runs/lifecycle.py",
        "    keep = {run.resume_checkpoint_id, run.best_checkpoint_id}",
        "    keep = {run.resume_checkpoint_id}",
        f"{LIFECYCLE}::test_old_checkpoints_are_dropped_but_never_the_best",
    ),
    Mutant(
        "a stop kills the trainers",
        "service/serve.py",
        "        self._send(signal.SIGTERM)",
        "        self._send(signal.SIGQUIT)",
        "tests/service/test_serve.py::test_a_service_that_is_told_to_stop_saves_what_it_trains",
    ),
    Mutant(
        "the children of a supervisor that died go on",
        "service/worker/launch.py",
        "        for number in numbers or [signal.SIGKILL]:",
        "        for number in numbers:",
        f"{WARM}::test_a_child_whose_supervisor_died_is_killed_and_the_next_one_is_forked",
    ),
    Mutant(
        "each attempt holds the lock of a supervisor",
        "service/worker/launch.py",
        "            os.close(descriptor)",
        "            pass",
        f"{WARM}::test_a_lock_is_kept_by_the_attempt_that_was_given_it_and_by_no_other",
    ),
    Mutant(
        "attempts inherit the credentials of their worker",
        "service/worker/launch.py",
        "if name == failpoints.VARIABLE or not name.startswith(SECRET)",
        "if True",
        f"{WARM}::test_variables_are_those_of_one_attempt_and_secrets_of_none",
    ),
    Mutant(
        "an invalid message is skipped",
        "service/worker/supervisor.py",
        "                    self._give_up(process, attempts.describe(line, error))",
        "                    log.warning(attempts.describe(line, error))",
        f"{TOY}::test_a_message_that_is_none_of_a_toys_is_the_death_of_its_process",
    ),
    Mutant(
        "two attempts get one GPU while another one is free",
        "service/worker/machine.py",
        "key=lambda gpu: counts[gpu.name]",
        "key=lambda gpu: -counts[gpu.name]",
        "tests/service/worker/test_devices.py"
        "::test_an_attempt_gets_the_gpu_that_it_asks_for_or_that_the_fewest_hold",
    ),
    # ---- requests -----------------------------------------------------------------------------
    Mutant(
        "another request under the same key gets the stored response",
        "service/http/strict_route.py",
        "    if row.fingerprint != fingerprint:",
        "    if False:",
        f"{IDEMPOTENT}::test_another_request_under_the_same_key_is_refused",
    ),
    Mutant(
        "a request that lost its lease stores its response",
        "service/http/strict_route.py",
        "            IdempotencyKey.lease_until == self.lease_until,\n",
        "",
        f"{IDEMPOTENT}::test_a_request_that_lost_its_lease_cannot_store_its_response",
    ),
)

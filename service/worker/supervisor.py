"""The supervisor: claims jobs, starts their processes, and writes their messages.

A process has one job, or several that compute together; each job has its own attempt.

Only the supervisor uses the database and the storage; its processes use neither. It never imports
torch. One thread does everything, except that other threads store files together with the messages
around them. The messages of a job are written in the order in which they were sent.
"""

import contextlib
import os
import secrets
import select
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel, ValidationError
from sqlalchemy import delete

from models.failpoints import reach
from models.training.interface import StopReason
from service.errors import Fenced, ServiceError
from service.jobs import life, queue
from service.jobs.kind import InputUnavailable, Job, Kind, Site, Tenure, Worker
from service.jobs.pipe import FileMessage, Heartbeat
from service.storage import database
from service.storage.database import reading, time_of_day, writing
from service.storage.references import collecting
from service.worker import attempts, machine
from service.worker.attempts import Attempt, Process, clear_scratch, make_scratch
from service.worker.launch import Child, Launcher
from service.worker.machine import Gpu, choose_gpu, found_devices

LOOK_S = 0.1  # seconds between two checks of own jobs and of the locks: a cancel must act soon
LOOK_AT_MOST = 1.0  # seconds of silence that one check may add: this process may have slept itself
STACK_S = 1.0  # seconds that a stalled process gets to write its stack
STOP_GRACE = 3.0  # seconds that a process gets to obey a cancel or pause before it is killed
LAST_WRITES = (
    1.0  # seconds after the grace period in which the ends of killed processes are written
)
DATABASE_RETRY = 0.5  # seconds between two tries to write while the database does not answer
STORAGE_WAIT = 2.0  # seconds before the next attempt at a job whose files could not be read
INBOX = 64  # the most messages of a process that wait to be written
TOGETHER = 8  # the most of them in one transaction, for which all other writers wait
SEEN = 10.0  # seconds between two heartbeats in the table of workers
FORGOTTEN = timedelta(hours=1)  # the row of a worker without heartbeats is deleted after this

log = structlog.get_logger("worker")


class Supervisor:
    """Does the jobs of the queue until `stop` is called."""

    def __init__(
        self,
        site: Site,
        kinds: Sequence[Kind[Any]],
        launcher: Launcher,
        gpus: Sequence[Gpu] = (),
        steer: Callable[[Site], bool] = lambda _site: False,
    ) -> None:
        """`steer` queues the jobs that follow from those that have ended; it must not wait.

        It returns whether there may be such jobs.
        """
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._site = site
        self._settings, self._engine = site.settings, site.engine
        self._kinds = kinds
        self._tables = list(dict.fromkeys(kind.table for kind in kinds))
        self._listener = database.Listener(self._engine, database.QUEUE)
        self._launcher = launcher
        self._processes: list[Process] = []
        self.is_stopping = False
        self._stop_by = 0.0
        self._next: dict[str, float] = {}
        slots = sum(kind.slots(self._settings) for kind in kinds)
        self._storers = ThreadPoolExecutor(slots, thread_name_prefix="store")
        #: a pipe that wakes the loop when a file is stored
        self._stored = os.pipe()
        self._looked_at = time.monotonic()
        self._locks = self._settings.data_dir.absolute() / "locks"
        self._lock: int | None = None
        self._gpus = gpus
        self._steer = steer

    # ---- the loop -----------------------------------------------------------------------------

    def run(self, wake: int | None = None) -> None:
        """Work until `stop`. A byte on the descriptor `wake` means new work; its end means stop."""
        every_s = self._settings.sweep_s
        with (
            machine.alive(self._locks, self.id) as self._lock,
            collecting(self._engine, self._site.blobs, every_s),
        ):
            log.info("worker started", worker=self.id, slots=self._settings.workers)
            self._guarded(self._keep_house)  # at once: an earlier worker may have died
            while not self._is_over():
                wake = self._wait(wake)
                for process in list(self._processes):
                    self._handle(process)
                self._guarded(self._keep_house)
                if self.is_stopping and time.monotonic() > self._stop_by:
                    self._abandon()
            self._abandon()
            self._storers.shutdown(wait=False)
            self._guarded(self._leave)
            self._listener.close()
            log.info("worker stopped", worker=self.id)

    def stop(self) -> None:
        """Claim no more jobs, and order every process to save and stop. Can be called again."""
        if not self.is_stopping:
            self.is_stopping = True
            self._stop_by = time.monotonic() + self._settings.grace_s

    def hurry(self) -> None:
        """Kill the processes and end; their jobs continue from their last stored state."""
        self.stop()
        self._stop_by = time.monotonic()

    def _is_over(self) -> bool:
        """Return whether to end now. A job whose end is not written by then is rescued later."""
        is_late = time.monotonic() > self._stop_by + LAST_WRITES
        return self.is_stopping and (not self._processes or is_late)

    def _attempts(self) -> list[Attempt]:
        """Return the attempts whose end is not written."""
        found = (attempt for each in self._processes for attempt in each.attempts.values())
        return [attempt for attempt in found if not attempt.is_settled]

    def _wait(self, wake: int | None) -> int | None:
        """Sleep until a process sends a message, `wake` is readable, or the next check is due."""
        readable = [process.child for process in self._processes if _may_read(process)]
        pause = min(LOOK_S, self._settings.poll_s)
        if any(child.has_message() for child in readable):
            pause = 0.0  # one read may bring several messages
        readers: list[Child | database.Listener | int] = [self._stored[0], *readable]
        readers += [] if wake is None else [wake]
        if self._listener.connect():
            readers.append(self._listener)
        ready, _, _ = select.select(readers, [], [], pause)
        if self._listener in ready:
            self._listener.drain()
            self._look_now()
        if self._stored[0] in ready:
            os.read(self._stored[0], 4096)
        if wake is not None and wake in ready:
            if os.read(wake, 4096) == b"":
                self.stop()
                return None
            self._look_now()
        return wake

    def _look_now(self) -> None:
        """Let the next round look for waiting jobs and check the states of own jobs."""
        for step in ("claim", "look"):
            self._next.pop(step, None)

    def _keep_house(self) -> None:
        if self._is_due("look", LOOK_S):
            self._end_stalls()
            self._obey_states()
        if self._is_due("beat", self._settings.renew_s):
            try:
                self._beat()
            except ServiceError:
                # This must be the first step once the database is back: a late worker must renew
                # its own leases before it rescues the jobs of others.
                del self._next["beat"]
                raise
        if self._is_due("locks", LOOK_S):
            self._rescue_from_dead()
        if self._is_due("sweep", self._settings.sweep_s):
            self._sweep()
        if self._is_due("seen", SEEN if self._launcher.is_warm() else 1.0):
            self._show()
        can_start = not self.is_stopping and self._launcher.is_warm()
        # Not after each message, because a process may send ten a second.
        if can_start and self._is_due("claim", self._settings.poll_s):
            self._claim_all()
            if self._steer(self._site):
                self._claim_all()

    def _guarded(self, step: Callable[[], None]) -> None:
        """Run a step. If the database or the storage fails, log it; the next round tries again."""
        try:
            step()
        except (ServiceError, OSError) as error:
            log.warning("database or storage not usable", error=str(error))
            self._rest()

    def _rest(self) -> None:
        """Wait before the next round, but only briefly if this worker has to end."""
        time.sleep(LOOK_S if self.is_stopping else DATABASE_RETRY)

    def _is_due(self, step: str, every_s: float) -> bool:
        now = time.monotonic()
        if self._next.get(step, 0.0) > now:
            return False
        self._next[step] = now + every_s
        return True

    # ---- claiming and leases ------------------------------------------------------------------

    def _is_free(self, kind: Kind[Any]) -> bool:
        busy = sum(process.kind is kind for process in self._processes)
        return busy < kind.slots(self._settings)

    def _claim_all(self) -> None:
        """Start waiting jobs, one of each kind in turn, until no kind has a job and a free slot."""
        while free := [kind for kind in self._kinds if self._is_free(kind)]:
            with reading(self._engine) as session:  # an idle queue costs no write lock
                waiting = queue.waiting(session, list({kind.table for kind in free}))
            has_begun = False
            for kind in free:
                if kind.table in waiting and self._claim(kind):
                    has_begun = True
                    # It may have been the last one: look before another kind claims from the table.
                    waiting.remove(kind.table)
            if not has_begun:
                return

    def _claim(self, kind: Kind[Any]) -> bool:
        """Claim a job, with those that may share its process, and start it."""
        lease_s = self._settings.lease_s
        with writing(self._engine) as session:
            first: Job | None = kind.claim(session, self.id, lease_s)
            jobs = [first] if first else []
            if first and kind.together:
                jobs += kind.together.claim(self._site, session, first, self.id)
        if not jobs:
            return False
        for job in jobs:
            log.info("job claimed", job_id=job.id, attempt=job.attempt)
        reach("worker.claimed")
        try:
            self._start(kind, jobs)
        except (ServiceError, OSError):
            # The jobs go back to the queue, so that they need not wait for the end of their leases.
            # They wait a little, or an outage of the storage would use up one attempt after the
            # other.
            for job in jobs:
                with writing(self._engine) as session, contextlib.suppress(Fenced):
                    life.stopped(session, job.id, job.attempt, wait_s=STORAGE_WAIT)
            raise
        return True

    def _start(self, kind: Kind[Any], jobs: Sequence[Job]) -> None:
        """Start a process for the jobs whose inputs are there."""
        inputs: list[BaseModel] = []
        begun: list[tuple[Job, Path]] = []
        for job in jobs:
            scratch = make_scratch(self._settings, job)
            first = inputs[0] if inputs else None
            prepared = self._prepare(kind, job, scratch, first)
            if prepared is not None:
                inputs.append(prepared)
                begun.append((job, scratch))
        if not begun:
            return
        job, scratch = begun[0]
        held = [process.gpu.name for process in self._processes if process.gpu]
        gpu = choose_gpu(kind.device(job), self._gpus, held)
        reach("worker.launch")
        own = gpu.environment if gpu else {}
        order = inputs[0]
        if kind.together and len(inputs) > 1:
            order = kind.together.join(inputs)
        child = self._launcher.start(kind.module, order, scratch, self._lock, own)
        process = Process(kind, child, scratch, gpu=gpu)
        for job, folder in begun:
            process.begin(Tenure(job.id, job.attempt), folder)
        self._processes.append(process)
        reach("worker.launched")

    def _prepare(
        self, kind: Kind[Any], job: Job, scratch: Path, first: BaseModel | None
    ) -> BaseModel | None:
        """Return the input of a job; None if it is gone, which ends the job."""
        try:
            if first is None or kind.together is None:
                return kind.prepare(self._site, job, scratch)
            return kind.together.prepare(self._site, job, scratch, first)
        except InputUnavailable as error:
            problem = life.problem(error.code, error.detail)
            with writing(self._engine) as session, contextlib.suppress(Fenced):
                life.fail(session, job.id, job.attempt, problem)
        except Fenced:
            log.warning("job lost before its start", job_id=job.id, attempt=job.attempt)
        shutil.rmtree(scratch, ignore_errors=True)
        return None

    def _beat(self) -> None:
        mine = self._attempts()
        if not mine:
            return
        reach("worker.beat")
        with writing(self._engine) as session:
            held = queue.beat(session, self.id, _numbers(mine), lease_s=self._settings.lease_s)
        for attempt in mine:
            if attempt.tenure.job_id not in held and attempt.storing is None:
                self._lose(attempt)

    def _obey_states(self) -> None:
        """Order processes to stop for a cancel, a pause or our end; kill those that do not obey."""
        mine = self._attempts()
        states: dict[str, str] = {}
        if mine:
            with reading(self._engine) as session:
                states = queue.states(session, _numbers(mine))
        for attempt in mine:
            state = states.get(attempt.tenure.job_id)
            if state is None:
                # While a thread writes, this may be the end that it has written.
                if attempt.storing is None:
                    self._lose(attempt)
            elif state == "cancelling":
                self._order_stop(attempt, "cancel", STOP_GRACE)
            elif state == "pausing":
                self._order_stop(attempt, "pause", self._settings.grace_s)
            elif self.is_stopping:
                self._order_stop(attempt, "handback", self._settings.grace_s)
            if attempt.kill_at is not None and time.monotonic() > attempt.kill_at:
                self._kill_for(attempt)
        for process in self._processes:
            if process.kill_at is not None and time.monotonic() > process.kill_at:
                process.child.kill()

    def _kill_for(self, attempt: Attempt) -> None:
        """Kill the process of an attempt that does not obey, unless others advance in it."""
        process = attempt.process
        if len(process.attempts) == 1 or process.silent_s >= STOP_GRACE:
            process.child.kill()

    def _order_stop(self, attempt: Attempt, reason: StopReason, grace_s: float) -> None:
        if attempt.stop_reason in {reason, "cancel"}:
            return
        attempt.stop_reason = reason
        attempt.kill_at = time.monotonic() + grace_s
        attempt.process.order_stop(attempt, reason)

    def _end_stalls(self) -> None:
        """Kill processes that were silent for too long, after they have written their stacks."""
        now = time.monotonic()
        passed, self._looked_at = min(now - self._looked_at, LOOK_AT_MOST), now
        for process in self._processes:
            # A process whose messages wait to be written is not silent.
            is_waiting = any(attempt.inbox for attempt in process.attempts.values())
            process.silent_s = 0.0 if is_waiting else process.silent_s + passed
            if process.silent_s < self._settings.stall_s or process.stalled_s is not None:
                continue
            log.warning("process stalled", job_ids=list(process.attempts))
            process.stalled_s = self._settings.stall_s
            process.child.show_stack()
            process.kill_at = now + STACK_S

    def _lose(self, attempt: Attempt) -> None:
        """End an attempt whose job was deleted or has another owner; its messages are dropped."""
        log.warning(
            "job lost: another worker has it, or it was deleted",
            job_id=attempt.tenure.job_id,
            attempt=attempt.tenure.attempt,
        )
        attempt.is_settled = True
        process = attempt.process
        if all(each.is_settled for each in process.attempts.values()):
            process.child.kill()
        else:
            process.order_stop(attempt, "cancel")

    def _rescue_from_dead(self) -> None:
        """Return the jobs of dead supervisors of this machine to the queue."""
        for owner in machine.dead(self._locks):
            with writing(self._engine) as session:
                queue.expire_now(session, self._tables, owner)
            reach("worker.expired")
            self._rescue_expired()
            machine.forget(self._locks, owner)

    def _sweep(self) -> None:
        """Return the jobs of silent supervisors to the queue; remove the files of dead ones."""
        self._rescue_expired()
        own = {each.scratch for each in self._processes}
        own |= {a.scratch for each in self._processes for a in each.attempts.values()}
        clear_scratch(self._engine, self._settings, self._tables, own)

    def _rescue_expired(self) -> None:
        with reading(self._engine) as session:
            lost = queue.expired(session, self._tables)
        for job_id, number in lost:
            reach("worker.rescue")
            with writing(self._engine) as session:
                if life.rescue(session, job_id, number):
                    log.warning("job rescued", job_id=job_id, attempt=number)

    # ---- messages of processes ----------------------------------------------------------------

    def _handle(self, process: Process) -> None:
        """Read and write the messages of a process; record its end."""
        self._read(process)
        for attempt in list(process.attempts.values()):
            if attempt.retry_at <= time.monotonic():
                self._advance(attempt)
        if process.has_ended and not process.attempts:
            process.wait()
            self._processes.remove(process)
            shutil.rmtree(process.scratch, ignore_errors=True)
            self._look_now()

    def _advance(self, attempt: Attempt) -> None:
        """Write the messages of an attempt, and its end if its process has ended."""
        process = attempt.process
        try:
            if not self._write_inbox(attempt):
                return
            if process.has_ended and not attempt.is_settled:
                self._bury(attempt)
        except Fenced:
            self._lose(attempt)
        except (ServiceError, OSError) as error:
            # No message is lost: this one stays first in the inbox, and while the inbox is full no
            # message is read, so the process has to wait.
            log.warning("cannot write", job_id=attempt.tenure.job_id, error=str(error))
            attempt.retry_at = time.monotonic() + DATABASE_RETRY
            if self.is_stopping and time.monotonic() > self._stop_by:
                attempt.inbox.clear()  # the job continues from its last stored state
        if attempt.is_settled and not attempt.inbox:
            self._release(attempt)

    def _read(self, process: Process) -> None:
        child = process.child
        while _may_read(process) and child.has_message():
            line = child.receive()
            process.silent_s = 0.0
            if line is None:
                process.has_ended = True
            elif process.fault is None:
                try:
                    message = process.kind.messages.validate_json(line)
                except ValidationError as error:
                    self._give_up(process, attempts.describe(line, error))
                    continue
                attempt = process.attempt_of(message)
                if attempt and type(message) is not Heartbeat:  # nothing of it is written
                    attempt.inbox.append(message)

    def _write_inbox(self, attempt: Attempt) -> bool:
        """Write the messages of the inbox in order; return whether all are written."""
        # A thread takes messages from the inbox before it is done with them.
        while attempt.inbox or attempt.storing is not None:
            try:
                if not self._write_first(attempt):
                    return False
            except (Fenced, ServiceError, OSError):
                raise
            except Exception as error:  # a defect in one kind of job must not end the others
                name = attempt.writes
                log.exception("cannot write", job_id=attempt.tenure.job_id, message=name)
                attempt.inbox.clear()
                fault = f"its message {name!r} could not be written: {type(error).__name__}"
                self._give_up(attempt.process, fault)
        return True

    def _give_up(self, process: Process, fault: str) -> None:
        """Kill a process with a fault; the record of its death names the fault."""
        log.error("process at fault", job_ids=list(process.attempts), fault=fault)
        process.fault = fault
        process.child.kill()

    def _write_first(self, attempt: Attempt) -> bool:
        """Write the first messages of the inbox; return whether they are written.

        If there is a file among them, a thread does it, because storage may be slow and leases must
        be renewed meanwhile.
        """
        if attempt.storing is None:
            if attempt.is_settled:
                attempt.inbox.clear()
                return True
            messages = list(islice(attempt.inbox, TOGETHER))
            if not any(isinstance(message, FileMessage) for message in messages):
                attempts.write(self._site, attempt, messages)
                return True
            attempt.storing = self._storers.submit(attempts.write, self._site, attempt, messages)
            attempt.storing.add_done_callback(lambda _done: os.write(self._stored[1], b"\n"))
        if not attempt.storing.done():
            return False
        stored, attempt.storing = attempt.storing, None
        stored.result()
        return True

    def _bury(self, attempt: Attempt) -> None:
        """Record the end of an attempt by the death of its process."""
        code = attempt.process.wait()
        reach("worker.bury")
        attempts.write_death(self._site, attempt, code)
        attempt.is_settled = True

    def _release(self, attempt: Attempt) -> None:
        """Remove the files of an attempt whose end is written; its process ends with the last."""
        process = attempt.process
        del process.attempts[attempt.tenure.job_id]
        if attempt.scratch != process.scratch:
            shutil.rmtree(attempt.scratch, ignore_errors=True)
        if not process.attempts and process.kill_at is None:
            process.kill_at = time.monotonic() + STOP_GRACE

    # ---- heartbeat and end --------------------------------------------------------------------

    def _show(self) -> None:
        """Write a heartbeat into the table of workers."""
        with writing(self._engine) as session:
            worker = session.get(Worker, self.id) or Worker(
                id=self.id, host=socket.gethostname(), pid=os.getpid(), capacity=0, devices=[]
            )
            worker.capacity = self._settings.workers
            worker.is_warm = self._launcher.is_warm()
            worker.devices = found_devices()
            worker.seen_at = now = time_of_day(session)
            session.add(worker)
            session.execute(delete(Worker).where(Worker.seen_at < now - FORGOTTEN))

    def _abandon(self) -> None:
        for attempt in self._attempts():
            attempt.stop_reason = attempt.stop_reason or "handback"
        for process in self._processes:
            process.child.kill()

    def _leave(self) -> None:
        with writing(self._engine) as session:
            session.execute(delete(Worker).where(Worker.id == self.id))
        if not self._processes:  # otherwise the free lock lets others take the jobs at once
            machine.forget(self._locks, self.id)


def _may_read(process: Process) -> bool:
    """Return whether the inboxes have room for messages of the process."""
    return not process.has_ended and all(
        len(attempt.inbox) < INBOX for attempt in process.attempts.values()
    )


def _numbers(found: Sequence[Attempt]) -> dict[str, int]:
    """Return the job of each attempt and its number."""
    return {each.tenure.job_id: each.tenure.attempt for each in found}

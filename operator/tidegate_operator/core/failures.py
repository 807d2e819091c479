"""What is wrong with some worker sets: refused pods first, then what each pod says."""

from collections.abc import Sequence

from tidegate_api.names import Reason
from tidegate_operator.core.observation import ObservedPod, PoolObservation, Scrape
from tidegate_operator.core.podfailure import Failure, Patient, diagnose
from tidegate_operator.core.workersets import ENDED_PHASES, WorkerSet

_NO_SCRAPE = Scrape()


def find_failures(observation: PoolObservation, sets: Sequence[WorkerSet]) -> tuple[Failure, ...]:
    """Return what is wrong with `sets`: refused pods first, then by pod name."""
    refused = [
        Failure(Reason.WRITE_REFUSED, item.deployment.replica_failure, item.name)
        for item in sets
        if item.deployment is not None and item.deployment.replica_failure
    ]
    classes = {item.name: item for item in observation.pool.spec.accelerators}
    patients = [
        Patient(
            pod=pod,
            accelerator=classes.get(pod.accelerator),
            scrape=observation.scrapes.get(pod.uid, _NO_SCRAPE),
            now_s=observation.now_s,
        )
        for item in sets
        for pod in item.pods
        if not pod.ready and not pod.terminating
    ]
    current = [patient for patient in patients if not _superseded(patient.pod, sets)]
    return (*refused, *(f for f in map(diagnose, current) if f is not None))


def _superseded(pod: ObservedPod, sets: Sequence[WorkerSet]) -> bool:
    """An ended (evicted) pod says nothing once its set is complete again."""
    if pod.phase not in ENDED_PHASES:
        return False
    mine = [item for item in sets if item.name == pod.worker_set]
    return all(item.ready >= item.replicas for item in mine)

"""Where a plan is on the cluster: its bundles are reserved before anything runs, as one placement group, and laid out anew when the
cluster has changed.

A placement group is all there or not at all, so two jobs do not halve each other's GPUs for ever; while it waits, autoscalers
add nodes for it; it goes with its job, however that ends; and whatever runs in it ends with it.
"""

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence

from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from geoloc.errors import StalledError, UsageError
from geoloc.pipeline.cluster import cluster_nodes, describe_free, free_nodes, nodes_for
from geoloc.pipeline.options import ClusterOptions
from geoloc.pipeline.plan import Bundle, Node, Plan, check_options, lay_out, parse_labels
from geoloc.recipes.stage import Stage

log = logging.getLogger("geoloc")

POLL_S = 2
"""Between two looks at a cluster that is to grow."""
PLACE_S = 20
"""That a cluster has to place what its nodes have room for; if it takes longer, others are there."""
WORTH = 1.2
"""Times as many GPUs, or CPUs where there are none, are worth loading all models anew."""
LOST = "nodes were lost"


class Placement:
    """A job's stages on the cluster's nodes."""

    def __init__(self, options: ClusterOptions, stages: Sequence[Stage]) -> None:
        """Lay them out. A cluster that is to grow (``wait_minutes``) is asked for the GPUs that are wanted, and waited for; where
        none are named, any that come in that time are used.

        Raises UsageError, instead of hanging, where the cluster lacks what the plan needs.
        """
        check_options(options)
        self.options, self._stages = options, stages
        self.plan = self._wait_for_nodes()
        self._all_cpus = self.plan.cpus
        """Of a plan for all that the nodes have; ``plan`` is for less where others are there."""
        self._group: PlacementGroup | None = None
        self._missing: list[PlacementGroup] = []
        self._changed: tuple[str, float] | None = None
        self._next = self.plan, self.plan.cpus
        self._started = False
        self._vain = 1
        """Grows with every attempt at more room that others had: the next comes later."""

    @contextlib.contextmanager
    def reserved(self) -> Iterator[PlacementGroup]:
        """The plan's bundles. Where other jobs have them, the plan becomes one for what those leave, or waits for them.

        What still runs in the bundles afterwards is ended. Raises StalledError where they are not to be had for
        ``stall_minutes``.
        """
        self._changed, self._group = None, self._ask(self.plan.bundles)
        try:
            self._wait_for_room()
            self._started = True
            if self.options.adapt_minutes:
                self._missing = self._ask_for_actors((self.options.gpus or 0) - self.plan.gpus)
            yield self._group
        finally:
            _give_up(self._group, *self._missing)
            self._group, self._missing = None, []

    def change(self) -> str | None:
        """Why the stages should be laid out anew now, where nodes were lost, or more joined, ``adapt_minutes`` ago."""
        if not self.options.adapt_minutes:
            return None
        try:
            plan = self._plan_for(nodes_for((self._group, *self._missing)))
            self._next = plan, self._plan_for(cluster_nodes()).cpus
            reason = self._reason(plan)
        except UsageError:  # nodes to go on with have yet to come, and Ray waits for them
            reason = None
        if reason is None:
            self._changed = None
        elif self._changed is None or self._changed[0] != reason:
            self._changed = reason, time.monotonic()
        else:
            minutes = self.options.adapt_minutes * (1 if reason == LOST else self._vain)
            return reason if time.monotonic() - self._changed[1] >= 60 * minutes else None
        return None

    def adapt(self) -> None:
        """Take the plan that the last ``change`` was for. What was reserved is not free at once when it is given up, so it is not
        looked for anew; where more has changed since, ``reserved`` waits, or makes do with less."""
        self.plan, self._all_cpus = self._next

    def _wait_for_nodes(self) -> Plan:
        options, asked, announced = self.options, [], False
        deadline = time.monotonic() + 60 * options.wait_minutes
        try:
            while True:
                nodes, late = cluster_nodes(), time.monotonic() >= deadline
                may_come = options.gpus is None and not any(node.gpus for node in nodes)
                try:
                    if late or not may_come:
                        return lay_out(options, self._stages, nodes, options.min_gpus if late else None)
                except UsageError:
                    if late:
                        raise
                if not announced:
                    log.info("Waiting up to %g minutes for the cluster to grow (--wait-minutes)", options.wait_minutes)
                    announced = True
                    asked = self._ask_for_actors(options.gpus_per_actor if options.gpus is None else options.gpus)
                    asked = asked or [self._ask([Bundle(1)])]
                time.sleep(POLL_S)
        finally:
            _give_up(*asked)

    def _wait_for_room(self) -> None:
        start, announced = time.monotonic(), False
        while not self._group.wait(PLACE_S):
            waited = (time.monotonic() - start) / 60
            if self.options.stall_minutes and waited >= self.options.stall_minutes:
                raise StalledError(
                    f"the plan ({self.plan.describe()}) found no room for {waited:.0f} minutes (--stall-minutes "
                    f"{self.options.stall_minutes:g}): free are {describe_free()}. The same command goes on from here"
                )
            if not announced:
                log.info("Waiting for room for %s: free are %s", self.plan.describe(), describe_free())
                announced = True
            with contextlib.suppress(UsageError):  # nor is there room for less
                plan = self._plan_for(free_nodes())
                self._vain *= 2 if self._started else 1
                _give_up(self._group)
                self.plan, self._group = plan, self._ask(plan.bundles)
        if announced:
            log.info("There is room for %s", self.plan.describe())

    def _plan_for(self, nodes: Sequence[Node]) -> Plan:
        """As many GPUs as will do: none where the plan has none, and never none where it has some, which its models are worth."""
        fewest = self.options.min_gpus or (None if self._started else self.options.gpus) or self.options.gpus_per_actor
        return lay_out(self.options, self._stages, nodes, fewest if self.plan.gpus else None)

    def _reason(self, plan: Plan) -> str | None:
        """Why another plan is better than the one at work, if so."""
        if placement_group_table(self._group)["state"] != "CREATED":
            return LOST if (plan.gpus, plan.cpus) < (self.plan.gpus, self.plan.cpus) else None
        if plan.gpus:
            complete = plan.gpus == self.options.gpus
            more = plan.gpus > self.plan.gpus and (complete or plan.gpus >= WORTH * self.plan.gpus)
            return "GPUs are free" if more else None
        return "nodes have joined" if plan.cpus >= WORTH * self._all_cpus else None

    def _ask_for_actors(self, gpus: int) -> list[PlacementGroup]:
        """One by one: an autoscaler adds nodes for those that it can, and none for a group that it cannot have whole."""
        each = self.options.gpus_per_actor
        return [self._ask([Bundle(0, each)]) for _ in range(gpus // each)]

    def _ask(self, bundles: Sequence[Bundle]) -> PlacementGroup:
        resources = [{"CPU": bundle.cpus} | ({"GPU": bundle.gpus} if bundle.gpus else {}) for bundle in bundles]
        asked = [{kind: amount for kind, amount in each.items() if amount} for each in resources]
        labels = parse_labels(self.options.label_selector)
        return placement_group(
            asked, strategy="SPREAD", bundle_label_selector=[labels] * len(asked) if labels else None
        )


def _give_up(*groups: PlacementGroup) -> None:
    for group in groups:
        remove_placement_group(group)


class InBundles:
    """Tells Ray Data where each actor of a pool goes, as it starts them: ``ray_remote_args_fn``.

    Ray Data is about to drop that (2.64), and has nothing else yet that tells one actor of a pool from another. Without it, actors
    that have a small share of a GPU crowd on one, and leave no whole one for one with a large share.
    """

    def __init__(self, group: PlacementGroup, bundles: Sequence[int]) -> None:
        self._group, self._left = group, list(bundles)

    def __call__(self) -> dict:
        """One that comes when all have come replaces one that did not get ready, wherever that was."""
        bundle = self._left.pop(0) if self._left else -1
        return {"scheduling_strategy": PlacementGroupSchedulingStrategy(self._group, bundle)}

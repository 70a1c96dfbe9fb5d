"""The service as Ray Serve builds it.

serve run geoloc.serving.app:build recipe=lite index=/data/index
"""

from ray import serve
from ray.serve.config import BackpressureConfig

from geoloc.recipes.method import check
from geoloc.recipes.reading import recipe_to_dict
from geoloc.serving.access import Ledger, read_keys
from geoloc.serving.api import Api
from geoloc.serving.models import RankingModels
from geoloc.serving.options import S3, ServingOptions

FLOOD = 1000
"""Requests beyond those that may wait, from which on Ray Serve refuses them itself; the API does before, with a reason."""


def build(options: ServingOptions) -> serve.Application:
    """The application. What models there are is the deployments' ``user_config``: of other values there, the copies that run load
    them beside those that answer; of other ``options``, other copies are started beside those that run.

    Raises UsageError for what can be told without loading models.
    """
    recipe = options.models.read(S3)
    check(recipe, S3)
    read_keys(options.keys)
    device, threads = ("cuda", 4) if options.gpus_each else ("cpu", 2)
    common = {
        "autoscaling_config": {
            "min_replicas": 1,
            "max_replicas": options.replicas,
            "target_ongoing_requests": 2 * options.batch_size,
        },
        "user_config": {"resolved": recipe_to_dict(recipe.pinned(S3))},  # copies that start later answer by the same
        "ray_actor_options": {"num_cpus": 0, "num_gpus": options.gpus_each},
        "health_check_period_s": 30,
        "health_check_timeout_s": 60,
        "graceful_shutdown_timeout_s": 60,
        "max_surge_percent": 100,  # copies that replace others are ready before those stop
    }
    ranking = None
    if recipe.rankers:
        ranking = RankingModels.options(
            **common, max_ongoing_requests=2 * options.batch_size, max_queued_requests=options.max_waiting
        ).bind(device, threads, options.batch_size)
    ledger = None
    if options.replicas > 1:
        one_at_a_time = {"max_ongoing_requests": 1}  # Ray Serve runs methods like its own in threads
        ledger = serve.deployment(Ledger, ray_actor_options={"num_cpus": 0}, **one_at_a_time).bind()
    api = Api.options(
        **common,
        max_ongoing_requests=options.max_waiting + FLOOD,
        max_queued_requests=FLOOD,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
    )
    return api.bind(options.deployment, ranking, ledger, device, threads)

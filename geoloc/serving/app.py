"""The service as Ray Serve builds it.

serve run geoloc.serving.app:build preset=lite index=/data/index
"""

from ray import serve

from geoloc.serving.api import Api
from geoloc.serving.models import Locating, RankingModels
from geoloc.serving.options import ServingOptions

HEALTH = {"health_check_period_s": 30, "health_check_timeout_s": 60, "graceful_shutdown_timeout_s": 60}


def build(options: ServingOptions) -> serve.Application:
    """The application. Models are in the deployments' ``user_config``, so that others can be deployed while it runs."""
    models = options.models.model_dump()
    device, threads = ("cuda", 4) if options.gpus_each else ("cpu", 2)
    scale = {
        "autoscaling_config": {
            "min_replicas": 1,
            "max_replicas": options.replicas,
            "target_ongoing_requests": options.batch_size,
        },
        "max_ongoing_requests": 2 * options.batch_size,
        "max_queued_requests": options.max_waiting,
        "user_config": models,
        "ray_actor_options": {"num_cpus": 0, "num_gpus": options.gpus_each},
        **HEALTH,
    }
    size = options.batch_size
    locating = Locating.options(**scale).bind(int(options.max_megapixels * 1e6), device, threads, size)
    ranking = RankingModels.options(**scale).bind(device, threads, size) if options.ranker_adapter else None
    api = Api.options(max_ongoing_requests=4 * options.max_waiting, ray_actor_options={"num_cpus": 0}, **HEALTH)
    return api.bind(options, locating, ranking)

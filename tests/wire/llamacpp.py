"""A llama.cpp server on loopback, in a process of its own, with a model of random weights.

`python -m tests.wire.llamacpp MODEL PORT` serves until its standard input closes.
"""

import subprocess
import sys
import time
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from socket import socket

ROOT = Path(__file__).parent.parent.parent
CONTEXT = 2048
WIDTH, HEADS, INNER, LAYERS = 64, 4, 128, 2
PRINTABLE = [chr(code) for code in range(0x21, 0x7F)]
TEMPLATE = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[assistant] "


def vocabulary():
    """Tokens and their types. The 256 byte tokens let any text be written; only the characters are ever said."""
    from gguf import TokenType

    special = [("<unk>", TokenType.UNKNOWN), ("<s>", TokenType.CONTROL), ("</s>", TokenType.CONTROL)]
    raw = [(f"<0x{byte:02X}>", TokenType.BYTE) for byte in range(256)]
    said = [(text, TokenType.NORMAL) for text in ("\u2581", *PRINTABLE)]
    return [*special, *raw, *said]


def prompt_tokens(messages):
    """How many tokens the model must have been given for these messages."""
    lines = [f"[{message['role']}] {message['content']}\n" for message in messages]
    known = {" ", *PRINTABLE}
    text = "".join([*lines, "[assistant] "])
    return 2 + sum(1 if char in known else len(char.encode()) for char in text)  # 2: <s> and a space before all


def write_model(path):
    """Write a model of the llama architecture, about 0.5 MB, the same at each call."""
    import gguf
    import numpy

    random = numpy.random.default_rng(7)
    tokens = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_scores([0.0 if kind == gguf.TokenType.BYTE else -1.0 for _, kind in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)

    def weights(name, *shape):
        writer.add_tensor(name, random.standard_normal(shape, dtype=numpy.float32) / WIDTH**0.5)

    def ones(name):
        writer.add_tensor(name, numpy.ones(WIDTH, dtype=numpy.float32))

    weights("token_embd.weight", len(tokens), WIDTH)
    for layer in range(LAYERS):
        ones(f"blk.{layer}.attn_norm.weight")
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weights(f"blk.{layer}.{part}.weight", WIDTH, WIDTH)
        ones(f"blk.{layer}.ffn_norm.weight")
        weights(f"blk.{layer}.ffn_gate.weight", INNER, WIDTH)
        weights(f"blk.{layer}.ffn_up.weight", INNER, WIDTH)
        weights(f"blk.{layer}.ffn_down.weight", WIDTH, INNER)
    ones("output_norm.weight")
    # A row of zeros is never the likeliest token: neither half a character nor an early end is said.
    output = random.standard_normal((len(tokens), WIDTH), dtype=numpy.float32)
    output[: -len(PRINTABLE)] = 0
    writer.add_tensor("output.weight", output)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@contextmanager
def serving(model, log):
    """The base address of a server for the model; `log` is a path for what it writes. Gone at the end."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.wire.llamacpp", str(model), str(port)]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=output, stderr=output) as process,
    ):
        try:
            _wait_until_ready(process, port, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def _wait_until_ready(process, port, log):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass  # it does not listen yet
        finally:
            connection.close()
        time.sleep(0.05)
    raise AssertionError(f"The llama.cpp server did not start:\n{log.read_text(errors='replace')[-3000:]}")


def main(model, port):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {"tiny"}
    params.hostnames = ["127.0.0.1"]
    params.port = int(port)
    params.n_ctx = CONTEXT
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.offline = True
    params.ui = False
    server = xllamacpp.Server(params)
    sys.stdin.read()  # ends with the process that started this one, however that ends
    del server


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What the DeepSparse backend's child runs, with the interpreter that has DeepSparse (Python 3.8 to 3.11): nothing else of ours.

It answers on the descriptor that was standard output, whatever the library prints. It writes a line of JSON once DeepSparse is
imported, and one once a model is compiled. Then it writes a byte for every byte that it is sent: "r" runs the model, "p" does
nothing.
"""

import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Serve until the other side closes."""
    answers = os.dup(1)
    os.dup2(2, 1)

    def say(**answer: object) -> None:
        os.write(answers, (json.dumps(answer) + "\n").encode())

    here = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != here]  # a file of this folder has the library's name
    try:
        import deepsparse
        import numpy
    except Exception as error:
        say(error=f"{type(error).__name__}: {error}")
        return
    say(version=getattr(deepsparse, "__version__", "unknown"))
    line = sys.stdin.buffer.readline()
    if not line:
        return
    job = json.loads(line.decode())
    try:
        with numpy.load(job["inputs"], allow_pickle=False) as stored:
            inputs = [numpy.ascontiguousarray(stored[key]) for key in stored.files]
        engine = deepsparse.Engine(model=job["model"], batch_size=job["batch"], num_cores=job["threads"])
        say(fraction=float(engine.fraction_of_supported_ops))
    except Exception as error:
        say(error=f"{type(error).__name__}: {error}")
        return
    requests = sys.stdin.fileno()
    while True:
        asked = os.read(requests, 1)
        if not asked:
            return
        try:
            if asked == b"r":
                engine.run(inputs)
            os.write(answers, b".")
        except Exception as error:
            os.write(answers, b"!")
            say(error=f"{type(error).__name__}: {error}")
            return


if __name__ == "__main__":
    main()

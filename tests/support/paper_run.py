"""The paper's run by name: three lines from an empty folder to a first step, and its checkpoint evaluated by hub id.

A hub and a picture server on this machine stand in for the public ones; the caller brings the model's files.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

from download_hub import download_hub
from picture_server import picture_server
from PIL import Image

COCO = [f"{number:012d}.jpg" for number in range(1000, 1010)]
GENOME = [f"VG_100K_2/{number}.jpg" for number in range(2000, 2010)]

MAKERS = {
    "model_type": "internvl_chat",
    "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"},
}
# One process, so that torch is loaded once; what is printed tells the lines apart.
SCRIPT = """
import json, sys
from typer.testing import CliRunner
from opengrit.cli.app import app
for line in json.loads(sys.argv[1]):
    done = CliRunner().invoke(app, line)
    print("=>", done.exit_code, line[0], flush=True)
    print(done.output, flush=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
"""


def jpeg(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(stream, "JPEG")
    return stream.getvalue()


def rows(names: list[str], dataset: str, answers: list[str | int]) -> bytes:
    return b"".join(
        json.dumps(
            {
                "question": f"What is thing {name[-6:-4]}?",
                "answer": answer,
                "image": name,
                "width": 64,
                "height": 48,
                "bboxs": [[0, 0, 32, 24]],
                "dataset": dataset,
            }
        ).encode()
        + b"\n"
        for name, answer in zip(names, answers, strict=True)
    )


def three_lines_and_the_checkpoint(tmp_path: Path, model: dict[str, bytes]) -> None:
    """Run them, with `model` as the base and as the checkpoint, and assert what they leave."""
    work = tmp_path / "work"
    work.mkdir()
    data = {
        "vsr_cot_train_10.jsonl": rows(COCO, "vsr", ["Yes", "No", "cat", "dog", "toilet"] * 2),
        "tallyqa_train_10.jsonl": rows(GENOME, "tallyqa", [0, 1, 2, 3, 4] * 2),
    }
    hub_files = {
        "datasets/yfan1997/GRIT_data": data,
        "Qwen/Qwen2.5-VL-3B-Instruct": model,
        "yfan1997/GRIT-20-Qwen2.5-VL-3B": model,
        "yfan1997/GRIT-20-InternVL-2B": {
            "config.json": json.dumps(MAKERS).encode(),
            "configuration_internvl_chat.py": b"1 / 0",
        },
    }
    pictures = {f"/train2017/{name}": jpeg(64, 48) for name in COCO} | {
        f"/{name}": jpeg(64, 48) for name in GENOME
    }
    recipe = "grit20-qwen2.5-vl-3b-24gb-lora"
    short = [
        "--set",
        "train.max_steps=1",
        "--set",
        "train.max_completion_length=48",
        "--set",
        "train.bf16=false",
    ]
    asked = ["--data", "data/grit20", "--limit", "2", "--max-new-tokens", "8"]
    with download_hub(hub_files) as hub, picture_server(pictures) as server:
        mirrors = ["--mirror", f"coco={server.url}", "--mirror", f"visual-genome={server.url}"]
        lines = [
            ["data", "get", "grit20", "--pictures", *mirrors],
            ["doctor", recipe, *short],
            ["train", recipe, "--out", "runs/paper", *short],
            ["eval", "--model", "yfan1997/GRIT-20-Qwen2.5-VL-3B", *asked, "--out", "runs/checkpoint"],
            ["eval", "--model", "yfan1997/GRIT-20-InternVL-2B", *asked, "--out", "runs/refused"],
        ]  # fmt: skip
        environment = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "CUDA_VISIBLE_DEVICES": "",
        }
        environment.pop("HF_HUB_OFFLINE", None)
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, json.dumps(lines)],
            cwd=work, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    codes = [tuple(line.split()[1:]) for line in done.stdout.splitlines() if line.startswith("=> ")]
    wanted = [("0", "data"), ("0", "doctor"), ("0", "train"), ("0", "eval"), ("2", "eval")]
    assert codes == wanted, done.stdout + done.stderr
    assert "opengrit convert internvl FOLDER" in done.stdout
    assert len(list((work / "data/grit20/images").rglob("*.jpg"))) == 20
    steps = (work / "runs/paper/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(steps[0])["step"] == 1
    records = (work / "runs/checkpoint/records.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(records) == 2

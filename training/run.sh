#!/bin/sh
# The whole chain: run.sh WORKDIR DATA QWEN3_TOKENIZER_DIR.  Every stage goes on where it was stopped; WORKDIR/model is the result.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$1 data=$2 qwen=$3 python=${PYTHON:-python3}
export OMP_WAIT_POLICY=PASSIVE TORCHINDUCTOR_CACHE_DIR="$work/inductor"
mkdir -p "$work"
[ -e "$work/tokenizer/tokenizer.json" ] || { "$python" "$here/tokenizer.py" "$data" "$qwen" "$work/tokenizer" && "$python" "$here/first_words.py" "$data" "$work/tokenizer"; }
[ -e "$work/words.json" ] || "$python" "$here/words.py" "$data" "$qwen" "$work/words.json"
"$python" "$here/vae.py" "$data" "$work"
"$python" "$here/latents.py" "$data" "$work"
"$python" "$here/scenes.py" "$data" "$work"
"$python" "$here/text.py" "$data" "$work"
"$python" "$here/denoiser.py" "$data" "$work" --compile
"$python" "$here/denoiser.py" "$data" "$work" --compile --distil --seconds 300
"$python" "$here/decoder.py" "$data" "$work"
"$python" "$here/export.py" "$work" "$work/model"
"$python" "$here/evaluate.py" "$work/model" "$data" --json "$work/figures.json" --sheet "$work/sheet.png"

#!/bin/sh
# The whole chain: run.sh WORKDIR DATA QWEN3_TOKENIZER_DIR [MODEL].  Every stage goes on where it was stopped; WORKDIR/model is the result.
# With MODEL, a directory as ../models/pocket, its weights go on: its tokenizer and autoencoder stay as they are.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$1 data=$2 qwen=$3 model=${4:-} python=${PYTHON:-python3}
export OMP_WAIT_POLICY=PASSIVE TORCHINDUCTOR_CACHE_DIR="$work/inductor"
mkdir -p "$work"
if [ "$model" ]; then
	for part in tokenizer vae; do [ -e "$work/$part" ] || cp -r "$model/$part" "$work/"; done
	after="--after $model --rate 0.6"
else
	[ -e "$work/tokenizer/tokenizer.json" ] || { "$python" "$here/tokenizer.py" "$data" "$qwen" "$work/tokenizer" && "$python" "$here/first_words.py" "$data" "$work/tokenizer"; }
	"$python" "$here/vae.py" "$data" "$work"
	after=
fi
[ -e "$work/words.json" ] || "$python" "$here/words.py" "$data" "$qwen" "$work/words.json"
"$python" "$here/latents.py" "$data" "$work"
"$python" "$here/scenes.py" "$data" "$work"
# shellcheck disable=SC2086 # $after is several words or none
"$python" "$here/text.py" "$data" "$work" $after
# shellcheck disable=SC2086
"$python" "$here/denoiser.py" "$data" "$work" --compile $after
"$python" "$here/denoiser.py" "$data" "$work" --compile --distil --seconds 300
[ "$model" ] || "$python" "$here/decoder.py" "$data" "$work"
"$python" "$here/export.py" "$work" "$work/model"
"$python" "$here/evaluate.py" "$work/model" "$data" --json "$work/figures.json" --sheet "$work/sheet.png"

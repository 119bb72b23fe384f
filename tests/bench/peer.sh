#!/usr/bin/env bash
# promptfs beside stable-diffusion.cpp with the same Z-Image model, in turn; tables for each size. Measures, never fails by time.
#
#     tests/bench/peer.sh PROMPTFS SD_CLI MODEL [SIZE...]
#
# MODEL is a folder in the diffusers layout with z_image_fused.safetensors in it, the transformer once more under its original
# names: stable-diffusion.cpp reads no other. TURNS=5 STEPS=8 THREADS=2; SD_OPTIONS are added to its command.
# Its log tells the stages with two decimals; loading, which it does inside them, is taken out of each.
set -u -o pipefail
threads=${THREADS:-2} steps=${STEPS:-8} turns=${TURNS:-5}
prompt="a red panda sits at a small wooden table by the window and reads a newspaper, a cup of green tea beside it, \
watercolour, soft morning light number"

# what the peer's log says, as the lines that `promptfs bench --peer` reads
stages() {
	awk -v steps="$steps" '
	function seconds(text) { sub(/.*(taking|in) /, "", text); return text + 0 }
	/loading tensors completed/ { loading += seconds($0); load += seconds($0) }
	/get_learned_condition completed/ { print "stage text", seconds($0) - loading; loading = 0 }
	/sampling completed/ { print "stage step", (seconds($0) - loading) / steps; loading = 0 }
	/latent .* decoded, taking/ { print "stage decode", seconds($0) - loading; loading = 0 }
	END { print "stage load", load }'
}

if [ "$1" = --peer ]; then # SD_CLI MODEL SIZE
	"$2" --diffusion-model "$3/z_image_fused.safetensors" --llm "$3"/text_encoder/model-00001-of-*.safetensors \
		--vae "$3/vae/diffusion_pytorch_model.safetensors" -p "$prompt 000" --cfg-scale 1.0 -W "${4%x*}" -H "${4#*x}" \
		--steps "$steps" -t "$threads" -s 0 -v ${SD_OPTIONS:-} -o "${TMPDIR:-/tmp}/peer.$$.png" 2>&1 | stages
	status=$?
	rm -f "${TMPDIR:-/tmp}/peer.$$.png"
	exit $status
fi
promptfs=$1 sd=$2 model=$3
shift 3
export THREADS=$threads STEPS=$steps
for size in "${@:-256x256}"; do
	echo "== $(basename "$model"), $size, $steps steps, $threads threads, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"
	"$promptfs" bench --model "$model/" --threads "$threads" --size "$size" --steps 2 --repeats "$turns" "$prompt" || exit 1
	"$promptfs" bench --model "$model/" --threads "$threads" --size "$size" --steps "$steps" --repeats "$turns" \
		--peer "bash '$0' --peer '$sd' '$model' $size" "$prompt" || exit 1
done

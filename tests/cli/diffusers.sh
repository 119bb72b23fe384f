# The model that ships, painted by diffusers itself: the same picture.  Needs a Python with diffusers and PyTorch
# (DIFFUSERS_PYTHON names it; else python3).
. "$(dirname "$0")/lib.sh"
python=${DIFFUSERS_PYTHON:-python3}
pocket=$root/models/pocket

if ! "$python" -c 'import diffusers, torch' 2>/dev/null; then
	echo "skip - diffusers: no Python with diffusers and PyTorch"
	exit 0
fi
same() { # PROMPT SEED
	run generate --model "$pocket" --device cpu --dtype f32 --seed "$2" -o ours.png "$1"
	[ "$status" = 0 ] && "$python" - "$pocket" "$1" "$2" 2>.python <<-'PY'
		import sys
		import numpy, torch
		from diffusers import ZImagePipeline
		from PIL import Image

		path, prompt, seed = sys.argv[1:]
		pipe = ZImagePipeline.from_pretrained(path, torch_dtype=torch.float32, local_files_only=True)
		pipe.set_progress_bar_config(disable=True)
		theirs = pipe(prompt, width=256, height=256, num_inference_steps=8, guidance_scale=0.0,
		              generator=torch.Generator("cpu").manual_seed(int(seed))).images[0]
		off = numpy.abs(numpy.asarray(theirs).astype(int) - numpy.asarray(Image.open("ours.png").convert("RGB")))
		print(f"{prompt}: off by at most {off.max()} of 255, {off.mean():.4f} on average")
		sys.exit(bool(off.max() > 2 or off.mean() > 0.3))
	PY
}
check "an English prompt as diffusers paints it" same "a red apple on a yellow background" 7
check "capitals as diffusers paints them" same "A Red APPLE on a yellow BACKGROUND" 7
check "a Chinese prompt as diffusers paints it" same "蓝色背景上的熊猫" 2
finish

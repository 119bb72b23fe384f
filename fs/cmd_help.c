/* promptfs help [COMMAND | TOPIC]: what stands in the manual pages, shorter. */
#include "fs/commands.h"

#include <string.h>

static const struct {
	const char *name, *summary, *text; /* no summary: a topic, not in the list of commands */
} helps[] = {
	{ "mount", "mount a folder whose images/ are painted from its prompts/",
		"usage: promptfs mount [options] MOUNTPOINT\n\n"
		"Serves prompts/, images/ and status/ under MOUNTPOINT, in the background; returns when it is ready.\n"
		"Writing prompts/NAME.txt makes images/NAME.png appear; opening that paints it.\n\n"
		"  -f                stay in the foreground\n"
		"  --sandbox         give up, for good, all that this mount does not need: other files, programs, "
		"privileges\n"
		"  -o OPTIONS        FUSE options (allow_other, ...)\n" },
	{ "unmount", "end a mount", "usage: promptfs unmount MOUNTPOINT\n" },
	{ "generate", "paint one picture without a mount",
		"usage: promptfs generate [parameters] [-o FILE] [PROMPT | -]\n\n"
		"PROMPT is taken literally; - reads a prompt file (see `promptfs help prompt`) from standard input.\n\n"
		"  -o FILE           where the picture goes (default out.png; - is standard output)\n"
		"  -v                report memory and times even where stderr is no terminal\n"
		"  --negative TEXT   negative prompt\n"
		"  --width N --height N --steps N\n"
		"  --guidance X      guidance_scale as in diffusers\n"
		"  --cfg X           CFG scale as in A1111 (1 is off); one of the two\n"
		"  --seed N          0 if not given; -1: a random one\n"
		"  --sampler NAME --scheduler NAME\n"
		"  --rng KIND        torch-cpu (default) or philox\n"
		"  --lora NAME[:SCALE]   repeatable\n"
		"  --set NAME=VALUE  any other argument of the model's diffusers pipeline; repeatable\n"
		"  --trace FILE      also write the tensors of every stage as safetensors; never taken from the "
		"cache\n" },
	{ "export", "copy pictures without padding",
		"usage: promptfs export NAME... | DIR -o DIR\n\n"
		"Copies pictures, or all of a folder, to DIR without the padding that gives images/ their fixed "
		"sizes.\n" },
	{ "convert", "write weights in another precision",
		"usage: promptfs convert [--type TYPE] FROM TO\n\n"
		"FROM is a file (safetensors, GGUF, ckpt) or the folder of a model's part. Names of tensors stay.\n\n"
		"  --type bf16       safetensors; also f32, and fp8 (e4m3, one factor a matrix)\n"
		"  --type q8_0       GGUF; also q4_0, q4_k\n" },
	{ "bench", "measure speed and memory, stage by stage",
		"usage: promptfs bench [options] [PROMPT]\n\n"
		"Paints without keeping the pictures, after measuring what the device does at most in one large "
		"product: seconds,\n"
		"GFLOP/s, share of that limit, peak memory. Never passes or fails by time.\n\n"
		"  --model random:X  random weights of the true shapes, made up in memory: z-image-turbo, flux-dev, "
		"sdxl, sd15,\n"
		"                    and cuts of Z-Image, medium and slice\n"
		"  --size WxH        repeatable; default: the model's\n"
		"  --steps N         default: the model's\n"
		"  --repeats N       medians of N after one run to warm up (default 5); 0: the first run counts\n"
		"  --limit X         take X GFLOP/s for the limit instead of measuring it; 0: none\n"
		"  --json            for programs\n"
		"  --peer COMMAND    run this shell command and ourselves in turn, --repeats times each, from start "
		"to end, and\n"
		"                    print the ratios; its lines \"stage NAME SECONDS\" are compared too\n" },
	{ "models", "list the configured models",
		"usage: promptfs models [--dry-run] [NAME...]\n\n"
		"Name, family, precision, size on disk, device, and what is wrong. Exits 1 when a model asked for "
		"cannot be used.\n\n"
		"  --dry-run         of each NAME or folder: every tensor that its configurations describe, and "
		"whether the "
		"files (or their index, or names.json) have it; no weights are needed\n" },
	{ "cache", "look after finished pictures",
		"usage: promptfs cache stat | ls | verify | gc [SIZE] | rm KEY... | pin KEY... | unpin KEY...\n\n"
		"  stat              number and size of the results\n"
		"  ls                every result, last used first: key, size, last use, pinned, prompt\n"
		"  verify            check every result; damaged ones are removed (exit 1)\n"
		"  gc [SIZE]         remove the least recently used ones beyond SIZE (default: the configured limit)\n"
		"  rm, pin, unpin    by key; the first digits suffice. Pinned results are never removed\n" },
	{ "help", "say more about a command; also: config, prompt",
		"usage: promptfs help [COMMAND | config | prompt]\n" },
	{ "config", NULL,
		"$XDG_CONFIG_HOME/promptfs/config.yaml, or --config FILE; variables win over it, options over both.\n\n"
		"  key               option              variable\n"
		"  (none)            --config FILE       PROMPTFS_CONFIG         another file\n"
		"  default_model     --model NAME|PATH   PROMPTFS_MODEL          for prompts that name none\n"
		"  loras             --loras DIR         PROMPTFS_LORAS          where <lora:NAME:x> looks\n"
		"  store             --store DIR         PROMPTFS_STORE          what is in prompts/\n"
		"  cache             --cache DIR         PROMPTFS_CACHE          finished pictures\n"
		"  device            --device NAME       PROMPTFS_DEVICE         ref, cpu, cuda:N, auto\n"
		"  dtype             --dtype NAME        PROMPTFS_DTYPE          f32, bf16, int8, fp8 (default: the "
		"device's)\n"
		"  threads           --threads N         PROMPTFS_THREADS        0: as many as processors\n"
		"  nice              --nice N            PROMPTFS_NICE           0 to 19: painting gives way to "
		"others\n"
		"  limits: queue     --queue-limit N     PROMPTFS_QUEUE_LIMIT    waiting pictures\n"
		"  limits: queue_user --queue-user-limit N PROMPTFS_QUEUE_USER_LIMIT  of one user (0: half of the "
		"queue for "
		"others than the owner)\n"
		"  limits: memory    --memory-limit X    PROMPTFS_MEMORY_LIMIT   as 14GiB; 0: none\n"
		"  limits: cache     --cache-limit X     PROMPTFS_CACHE_LIMIT    as 20GiB; 0: none\n"
		"  limits: packed    --packed-limit X    PROMPTFS_PACKED_LIMIT   weights kept ready beside the cache; "
		"0: "
		"none\n"
		"  limits: size      --size-limit WxH    PROMPTFS_SIZE_LIMIT     the largest picture\n"
		"  log               --log LEVEL         PROMPTFS_LOG            error, warn, info, debug, trace\n"
		"  log_file          --log-file FILE     PROMPTFS_LOG_FILE\n"
		"  models            (file only)         NAME: { path, device, dtype, preload, instances, defaults "
		"}\n\n"
		"defaults: { size: 1024x1024, steps: 8, guidance: 0, cfg_scale: 1, sampler: euler, seed: 1, negative: "
		"text, ... }\n"
		"PROMPTFS_MODELS is the folder that holds the model that ships.\n" },
	{ "prompt", NULL,
		"A prompt file is UTF-8 text. It may end as A1111 writes it:\n\n"
		"  a red panda reads a newspaper\n"
		"  Negative prompt: blurry\n"
		"  Steps: 8, Sampler: euler, Seed: 42, Size: 768x512\n\n"
		"Keys: Steps, Sampler, Scheduler, Guidance (diffusers), CFG scale (A1111), Distilled CFG Scale, Seed "
		"(-1: random),\n"
		"Size (width first), Model, RNG, Clip skip, LoRA (NAME:SCALE), Set (NAME=VALUE); also "
		"<lora:NAME:SCALE> in the text.\n"
		"Set: prompt_weights=a1111 reads (word:1.2), (word) and [word] as A1111 does; else they are text.\n"
		"Values with commas stand in double quotes. The last line counts as parameters only if text stands "
		"above it.\n"
		"A file .defaults holds such a line (and a negative prompt) for every prompt in its folder and "
		"below.\n" },
};

enum { N_HELPS = sizeof helps / sizeof *helps };

static const char common[] = "\nCommon options: --config FILE, --model NAME|PATH, --device ref|cpu|cuda:N|auto, "
			     "--dtype f32|bf16|int8|fp8, --store DIR,\n"
			     "--cache DIR, --threads N, --log LEVEL, --log-file FILE (all: `promptfs help config`).\n";

bool command_help(const char *topic, FILE *out)
{
	for (int i = 0; i < N_HELPS; i++) {
		if (strcmp(helps[i].name, topic) != 0)
			continue;
		fputs(helps[i].text, out);
		if (helps[i].summary)
			fputs(common, out);
		return true;
	}
	return false;
}

void command_overview(FILE *out)
{
	fputs("usage: promptfs COMMAND [options]\n\n", out);
	for (int i = 0; i < N_HELPS; i++)
		if (helps[i].summary)
			fprintf(out, "  %-10s %s\n", helps[i].name, helps[i].summary);
	fputs("\n`promptfs help COMMAND` says more; `promptfs --version` which one this is.\n", out);
}

int cmd_help(int argc, char **argv)
{
	if (argc > 2)
		return command_usage("", "one command at a time");
	if (argc == 2 && !command_help(argv[1], stdout))
		return command_usage("", "no command '%.40s'", argv[1]);
	if (argc < 2)
		command_overview(stdout);
	return command_finish();
}

/* config: what the configuration file, the environment (PROMPTFS_*) and the common options say, in one struct.
 *
 * Order, later wins: built-in values, $XDG_CONFIG_HOME/promptfs/config.yaml (or --config), PROMPTFS_*, options.
 * Unknown keys and wrong values fail with file and line.
 *
 *     key of the file      option            environment             meaning
 *     (none)               --config FILE     PROMPTFS_CONFIG         another file
 *     default_model        --model NAME|PATH PROMPTFS_MODEL          for prompts that name none
 *     models               (none)            (none)                  see struct config_model
 *     loras                --loras DIR       PROMPTFS_LORAS          where <lora:NAME:x> looks
 *     store                --store DIR       PROMPTFS_STORE          what is in prompts/
 *     cache                --cache DIR       PROMPTFS_CACHE          finished pictures
 *     device               --device NAME     PROMPTFS_DEVICE         ref, cpu, cuda:N, auto
 *     dtype                --dtype NAME      PROMPTFS_DTYPE          f32, bf16, int8, fp8
 *     threads              --threads N       PROMPTFS_THREADS        0: as many as processors
 *     nice                 --nice N          PROMPTFS_NICE           0 to 19: how much the painting gives way to others
 *     limits: queue        --queue-limit N   PROMPTFS_QUEUE_LIMIT    waiting jobs
 *     limits: queue_user   --queue-user-limit N  PROMPTFS_QUEUE_USER_LIMIT  of one user; 0: half for others than
 *                                                                  the owner
 *     limits: memory       --memory-limit X  PROMPTFS_MEMORY_LIMIT   such as 14GiB; 0: none
 *     limits: cache        --cache-limit X   PROMPTFS_CACHE_LIMIT    such as 20GiB; 0: none
 *     limits: packed       --packed-limit X  PROMPTFS_PACKED_LIMIT   weights ready to map, in CACHE/packed; 0: none
 *     limits: size         --size-limit WxH  PROMPTFS_SIZE_LIMIT     the largest picture
 *     log                  --log LEVEL       PROMPTFS_LOG            error, warn, info, debug, trace
 *     log_file             --log-file FILE   PROMPTFS_LOG_FILE
 *
 * Relative paths in a file start at the file's folder, others at the working directory; "~/" is the home directory.
 * PROMPTFS_MODELS: the folder that holds the model that ships.
 */
#ifndef PROMPTFS_FS_CONFIG_H
#define PROMPTFS_FS_CONFIG_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/recipe.h"

/* What stands before the name of a model of which there are configurations only, for `promptfs bench`. */
#define CONFIG_RANDOM "random:"

/* A model of the configuration. */
struct config_model {
	char name[64];
	char path[PATH_MAX];
	char device[32]; /* "" : the common device */
	char dtype[16];  /* "" : the common dtype */
	bool preload;
	int instances;
	struct recipe_fields defaults;
};

struct config {
	char file[PATH_MAX]; /* that was read; "" if none */
	char default_model[64];
	bool model_asked; /* by --model */
	int n_models;
	struct config_model *models; /* the model that ships is the last one, unless its name is taken */
	char loras[PATH_MAX];
	char store[PATH_MAX], cache[PATH_MAX];
	char device[32], dtype[16]; /* "auto", "" */
	int threads, nice;
	uint64_t memory_limit, cache_limit; /* bytes; 0: none */
	uint64_t packed_limit;              /* bytes of packed weights beside the cache; 0: keep none */
	int queue_limit, queue_user_limit;
	int width_limit, height_limit; /* limits: size */
	char log_level[8];             /* error, warn, info, debug, trace */
	char log_file[PATH_MAX];       /* "" : the default of the command */
};

/* argv-style common options are taken out of *argc/argv (those above, as "--x V" or "--x=V", up to "--"); the rest
 * keeps its order.  Wrong options and variables are STATUS_INVALID, a wrong file STATUS_CORRUPT, an unknown default
 * model STATUS_NO_MODEL. --model NAME|PATH sets default_model, adding the path as a model of its own. */
enum status config_load(int *argc, char **argv, struct config *out);
void config_free(struct config *c);

/* How many words of a command line a common option takes: 2 for "--device X", 1 for "--device=X", else 0. */
int config_option_words(const char *argument);

/* The configured model of this name, or NULL. NULL or "" asks for the default one. */
const struct config_model *config_find_model(const struct config *c, const char *name);

/* The name of a dtype as options give it; "" is DTYPE_OTHER, the device's default. */
enum status config_dtype(const char *name, enum dtype *out);

/* Where packed weights are kept. */
void config_packed(const struct config *c, char out[PATH_MAX + 8]);

/* STATUS_INVALID when a picture is larger than limits: size. */
enum status config_check_size(const struct config *c, int width, int height);

/* "14GiB", "500MB", "20G", "1048576": bytes. */
bool config_read_bytes(const char *text, uint64_t *out);

#endif

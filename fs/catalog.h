/* catalog: the configured models, opened (their descriptions, not their weights), and the configuration they come from.
 *
 * A reload makes a new catalog; the old one lives on, since pictures under way point into it.
 *
 * Threads: read-only after catalog_open.
 */
#ifndef PROMPTFS_FS_CATALOG_H
#define PROMPTFS_FS_CATALOG_H

#include "engine/model.h"
#include "fs/config.h"

struct catalog_model {
	const struct config_model *where;
	struct model model; /* only its name and path are set when it could not be opened */
	enum status status; /* why not, and */
	char *why;          /* in words; NULL when it could be opened */
};

struct catalog {
	struct config config;
	int n_models;
	struct catalog_model *models; /* in the order of config.models */
	struct catalog *older;        /* for the owner's list */
};

/* Takes the configuration (also on failure).  A model that cannot be opened is no failure: pictures of it are. */
enum status catalog_open(struct config *config, struct catalog **out);
void catalog_close(struct catalog *c); /* NULL is allowed; also closes the older ones */

/* NULL or "": the default model.  NULL when no such model is configured. */
const struct catalog_model *catalog_find(const struct catalog *c, const char *name);

#endif

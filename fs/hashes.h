/* hashes: the content hashes of models, remembered by what tells their files apart without reading them
 * (model.identity), in one small file of the cache's folder.
 *
 * Threads: any; processes may share the file.  Two that remember at the same moment: one of the hashes may be
 * forgotten.
 */
#ifndef PROMPTFS_FS_HASHES_H
#define PROMPTFS_FS_HASHES_H

#include "engine/model.h"

bool hashes_recall(const char *cache_dir, const char *identity, char hash[MODEL_HASH_LEN + 1]);
enum status hashes_remember(const char *cache_dir, const char *identity, const char *hash);

/* Fills m->hash: recalled, else computed by reading the whole model, and remembered. */
enum status hashes_settle(const char *cache_dir, struct model *m);

#endif

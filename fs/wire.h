/* wire: messages between the daemon and a worker process over a stream socket pair.
 *
 * A message is a header of two 32-bit numbers in the machine's order (length of the body, descriptors passed: 0 or 1)
 * and a body: one JSON object {"kind": ..., "id": N, ...}.  A descriptor travels by SCM_RIGHTS with the first byte of
 * its message.  The id of a request comes back in its replies.
 *
 *     to the worker      hello     device, dtype, threads, nice, memory_limit, packed, packed_limit, numerics
 *                        hash      path, name, identity            of a model; read every file of it
 *                        hash      path, identity                  of something else: a LoRA, a part
 *                        generate  path, name, identity, recipe, pixels
 *                        warm      path, name, identity            load it
 *                        unload    model                           its identity
 *                        cancel                                    its id is that of the request to end
 *     from the worker    ready     device, dtype                   after hello
 *                        hashed    hash                            after hash
 *                        progress  stage, step, steps, seconds     while generate and warm run
 *                        done      seconds, memory, loaded, loras  after generate, with the PNG or pixels; warm; unload
 *                        failed    status, text                    after any of them
 *
 * The end of the connection tells a worker to quit.  The daemon trusts a worker with nothing: wire_read_reply checks
 * every value, and whatever is wrong is STATUS_CORRUPT.
 *
 * Threads: a wire belongs to one thread at a time.
 */
#ifndef PROMPTFS_FS_WIRE_H
#define PROMPTFS_FS_WIRE_H

#include <jansson.h>
#include <stdint.h>

#include "engine/engine.h"

/* A recipe with two prompts of 1 MiB each, every character escaped, still fits; replies are short. */
enum { WIRE_REQUEST_MAX = 16 << 20, WIRE_REPLY_MAX = 64 << 10 };

struct wire;

struct wire_message {
	json_t *body; /* an object; NULL: no message */
	int fd;       /* -1: none */
};

/* Takes fd (closed also on failure).  receive_max: the longest body accepted; a longer one is STATUS_CORRUPT. */
enum status wire_open(int fd, size_t receive_max, struct wire **out);
void wire_close(struct wire *w);   /* NULL is allowed */
int wire_fd(const struct wire *w); /* for poll */

/* Sends body (borrowed), with a copy of fd unless it is -1.  STATUS_IO when the other side is gone or has not read for
 * a minute, STATUS_INVALID when the body is too long. */
enum status wire_send(struct wire *w, const json_t *body, int fd);

/* The next message; waits up to timeout_ms (-1: forever, 0: takes only what has arrived).  None in time: STATUS_OK with
 * body NULL.  STATUS_IO: the other side is gone; STATUS_CORRUPT: it sent garbage; both are final. */
enum status wire_receive(struct wire *w, int timeout_ms, struct wire_message *out);
void wire_message_fini(struct wire_message *m); /* frees the body, closes the descriptor */

/* What a worker said. */
enum wire_kind { WIRE_READY, WIRE_HASHED, WIRE_PROGRESS, WIRE_DONE, WIRE_FAILED };

struct wire_reply {
	enum wire_kind kind;
	uint64_t id;
	char device[32];                 /* WIRE_READY */
	char about[192];                 /* WIRE_READY: the device in words, or why it is the cpu; may be "" */
	enum dtype dtype;                /* WIRE_READY: not DTYPE_OTHER */
	char hash[MODEL_HASH_LEN + 1];   /* WIRE_HASHED */
	struct engine_progress progress; /* WIRE_PROGRESS; WIRE_DONE: the seconds and loras */
	uint64_t memory;                 /* WIRE_DONE: what the engine holds */
	int n_loaded;                    /* WIRE_DONE: identities of the models it has loaded */
	char loaded[ENGINE_MODELS_MAX][MODEL_HASH_LEN + 1];
	enum status status; /* WIRE_FAILED: not STATUS_OK */
	char text[1024];    /* WIRE_FAILED */
};

/* The dtype of a name; DTYPE_OTHER when there is none. */
enum dtype wire_find_dtype(const char *name);

enum status wire_read_reply(const json_t *body, struct wire_reply *out);

#endif

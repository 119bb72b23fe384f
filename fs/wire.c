/* wire: framing, descriptor passing and the check of replies.
 *
 * Reading never blocks in recvmsg and writing never in sendmsg; both wait in poll, so that every wait has an end.
 */
#include "fs/wire.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FDS_MAX = 4, CHUNK = 64 << 10, SEND_PATIENCE_MS = 60 * 1000 };

struct header {
	uint32_t len, n_fds;
};

struct wire {
	int fd;
	size_t receive_max;
	struct bytes in;  /* received, not yet taken */
	int fds[FDS_MAX]; /* received, not yet taken, in order */
	int n_fds;
	enum status broken; /* STATUS_OK while the stream is usable */
};

enum status wire_open(int fd, size_t receive_max, struct wire **out)
{
	struct wire *w = calloc(1, sizeof *w);

	if (!w) {
		close(fd);
		return status_fail(STATUS_NO_MEMORY, "no memory for the connection to a worker");
	}
	w->fd = fd;
	w->receive_max = receive_max;
	*out = w;
	return STATUS_OK;
}

void wire_close(struct wire *w)
{
	if (!w)
		return;
	for (int i = 0; i < w->n_fds; i++)
		close(w->fds[i]);
	bytes_free(&w->in);
	close(w->fd);
	free(w);
}

int wire_fd(const struct wire *w)
{
	return w->fd;
}

void wire_message_fini(struct wire_message *m)
{
	json_decref(m->body);
	if (m->fd >= 0)
		close(m->fd);
	*m = (struct wire_message){ .fd = -1 };
}

/* ---- sending */

/* One sendmsg; the descriptor goes with the first byte. */
static ssize_t send_some(int socket, struct iovec *part, int n_parts, int fd)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { .space = { 0 } };
	struct msghdr message = { .msg_iov = part, .msg_iovlen = (size_t)n_parts };
	struct cmsghdr *c;

	if (fd >= 0) {
		message.msg_control = control.space;
		message.msg_controllen = sizeof control.space;
		c = CMSG_FIRSTHDR(&message);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(c), &fd, sizeof fd);
	}
	return sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void advance(struct iovec **part, int *n_parts, size_t sent)
{
	while (*n_parts && sent >= (*part)->iov_len) {
		sent -= (*part)->iov_len;
		(*part)++;
		(*n_parts)--;
	}
	if (*n_parts) {
		(*part)->iov_base = (char *)(*part)->iov_base + sent;
		(*part)->iov_len -= sent;
	}
}

static enum status send_all(int socket, struct iovec *part, int n_parts, int fd)
{
	struct pollfd wait = { .fd = socket, .events = POLLOUT };
	ssize_t sent;
	int ready;

	while (n_parts) {
		sent = send_some(socket, part, n_parts, fd);
		if (sent > 0) {
			advance(&part, &n_parts, (size_t)sent);
			fd = -1;
			continue;
		}
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno != EAGAIN)
			return status_fail(STATUS_IO, "cannot send: %s", strerror(errno));
		ready = poll(&wait, 1, SEND_PATIENCE_MS);
		if (ready == 0)
			return status_fail(STATUS_IO, "cannot send: the other side has not read for %d s",
				SEND_PATIENCE_MS / 1000);
	}
	return STATUS_OK;
}

enum status wire_send(struct wire *w, const json_t *body, int fd)
{
	char *text = json_dumps(body, JSON_COMPACT);
	struct header header = { .n_fds = fd >= 0 };
	struct iovec parts[2];
	enum status status;
	size_t len;

	if (!text)
		return status_fail(STATUS_NO_MEMORY, "no memory for a message");
	len = strlen(text);
	if (len > WIRE_REQUEST_MAX) {
		free(text);
		return status_fail(STATUS_INVALID, "a message of %zu bytes is longer than %d", len, WIRE_REQUEST_MAX);
	}
	header.len = (uint32_t)len;
	parts[0] = (struct iovec){ &header, sizeof header };
	parts[1] = (struct iovec){ text, len };
	status = send_all(w->fd, parts, 2, fd);
	free(text);
	return status;
}

/* ---- receiving */

static enum status keep_fds(struct wire *w, struct msghdr *message)
{
	bool too_many = message->msg_flags & MSG_CTRUNC;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
			if (w->n_fds < FDS_MAX) {
				w->fds[w->n_fds++] = fd;
			} else {
				close(fd);
				too_many = true;
			}
		}
	}
	return too_many ? status_fail(STATUS_CORRUPT, "too many descriptors were sent") : STATUS_OK;
}

/* *got: bytes were added; false: nothing is there now. */
static enum status receive_some(struct wire *w, bool *got)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
	} control;
	struct iovec part = { .iov_len = CHUNK };
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space
	};
	ssize_t n;

	TRY(bytes_reserve(&w->in, CHUNK));
	part.iov_base = w->in.data + w->in.len;
	do
		n = recvmsg(w->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	*got = n > 0;
	if (n < 0)
		return errno == EAGAIN ? STATUS_OK : status_fail(STATUS_IO, "cannot receive: %s", strerror(errno));
	if (n == 0)
		return status_fail(STATUS_IO, "the connection was closed%s", w->in.len ? " within a message" : "");
	w->in.len += (size_t)n;
	return keep_fds(w, &message);
}

static enum status parse_body(const char *data, size_t len, json_t **out)
{
	json_error_t error;
	json_t *body = json_loadb(data, len, JSON_REJECT_DUPLICATES, &error);

	if (!body)
		return status_fail(STATUS_CORRUPT, "a message is no JSON: %s", error.text);
	if (!json_is_object(body)) {
		json_decref(body);
		return status_fail(STATUS_CORRUPT, "a message is no JSON object");
	}
	*out = body;
	return STATUS_OK;
}

/* The first message of what was received; body NULL if it is not complete. */
static enum status take_message(struct wire *w, struct wire_message *out)
{
	struct header header;
	size_t used;

	if (w->in.len < sizeof header)
		return STATUS_OK;
	memcpy(&header, w->in.data, sizeof header);
	if (header.len > w->receive_max || header.n_fds > 1)
		return status_fail(STATUS_CORRUPT, "a message has a wrong header (length %u, descriptors %u)",
			header.len, header.n_fds);
	if (w->in.len - sizeof header < header.len)
		return STATUS_OK;
	if (header.n_fds > (uint32_t)w->n_fds)
		return status_fail(STATUS_CORRUPT, "a message came without its descriptor");
	TRY(parse_body((char *)w->in.data + sizeof header, header.len, &out->body));
	if (header.n_fds) {
		out->fd = w->fds[0];
		memmove(w->fds, w->fds + 1, (size_t)--w->n_fds * sizeof w->fds[0]);
	}
	used = sizeof header + header.len;
	memmove(w->in.data, w->in.data + used, w->in.len - used);
	w->in.len -= used;
	return STATUS_OK;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static enum status receive(struct wire *w, int timeout_ms, struct wire_message *out)
{
	struct pollfd wait = { .fd = w->fd, .events = POLLIN };
	int64_t end = now_ms() + timeout_ms, left = timeout_ms;
	bool got;

	for (;;) {
		TRY(take_message(w, out));
		if (out->body)
			return STATUS_OK;
		TRY(receive_some(w, &got));
		if (got)
			continue;
		if (timeout_ms >= 0 && left <= 0)
			return STATUS_OK;
		poll(&wait, 1, timeout_ms < 0 ? -1 : (int)left);
		left = end - now_ms();
	}
}

enum status wire_receive(struct wire *w, int timeout_ms, struct wire_message *out)
{
	struct wire_message message = { .fd = -1 };

	if (w->broken)
		return status_fail(w->broken, "the connection is unusable since an earlier failure");
	w->broken = receive(w, timeout_ms, &message);
	TRY(w->broken);
	*out = message;
	return STATUS_OK;
}

/* ---- replies */

static enum status wrong(const char *what)
{
	return status_fail(STATUS_CORRUPT, "a worker's message has a wrong %s", what);
}

static enum status read_text(const json_t *body, const char *key, char *out, size_t size)
{
	const char *text = json_string_value(json_object_get(body, key));

	if (!text || strlen(text) >= size)
		return wrong(key);
	strcpy(out, text);
	return STATUS_OK;
}

static enum status read_int(const json_t *body, const char *key, int64_t high, int64_t *out)
{
	const json_t *value = json_object_get(body, key);

	if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > high)
		return wrong(key);
	*out = json_integer_value(value);
	return STATUS_OK;
}

static enum status read_seconds(const json_t *body, double seconds[STAGE_COUNT])
{
	const json_t *list = json_object_get(body, "seconds");
	double value;

	if (!json_is_array(list) || json_array_size(list) != STAGE_COUNT)
		return wrong("seconds");
	for (size_t i = 0; i < STAGE_COUNT; i++) {
		value = json_number_value(json_array_get(list, i));
		if (!json_is_number(json_array_get(list, i)) || !(value >= 0) || isinf(value))
			return wrong("seconds");
		seconds[i] = value;
	}
	return STATUS_OK;
}

static bool is_hash(const char *text)
{
	return text && strlen(text) == MODEL_HASH_LEN && strspn(text, "0123456789abcdef") == MODEL_HASH_LEN;
}

static enum status read_hash(const json_t *body, char *out)
{
	char hash[MODEL_HASH_LEN + 1];

	TRY(read_text(body, "hash", hash, sizeof hash));
	if (!is_hash(hash))
		return wrong("hash");
	memcpy(out, hash, sizeof hash);
	return STATUS_OK;
}

static enum status read_progress(const json_t *body, struct engine_progress *out)
{
	int64_t stage, step, steps;

	TRY(read_int(body, "stage", STAGE_COUNT - 1, &stage));
	/* samplers of higher order call the model more than once a step */
	TRY(read_int(body, "steps", RECIPE_STEPS_MAX * 4, &steps));
	TRY(read_int(body, "step", steps, &step));
	out->stage = (enum stage)stage;
	out->step = (int)step;
	out->steps = (int)steps;
	return read_seconds(body, out->seconds);
}

static enum status read_loaded(const json_t *body, struct wire_reply *out)
{
	const json_t *list = json_object_get(body, "loaded");
	size_t n = json_array_size(list);

	if (!json_is_array(list) || n > ENGINE_MODELS_MAX)
		return wrong("loaded");
	for (size_t i = 0; i < n; i++) {
		const char *identity = json_string_value(json_array_get(list, i));

		if (!is_hash(identity))
			return wrong("loaded");
		memcpy(out->loaded[i], identity, sizeof out->loaded[i]);
	}
	out->n_loaded = (int)n;
	return STATUS_OK;
}

/* Pairs: how many modules of a file were applied, of how many. */
static enum status read_loras(const json_t *body, struct engine_loras *out)
{
	const json_t *list = json_object_get(body, "loras"), *pair;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) > ENGINE_LORAS_MAX)
		return wrong("loras");
	json_array_foreach (list, i, pair) {
		const json_t *applied = json_array_get(pair, 0), *modules = json_array_get(pair, 1);

		if (json_array_size(pair) != 2 || !json_is_integer(applied) || !json_is_integer(modules) ||
			json_integer_value(applied) < 0 || json_integer_value(modules) > INT_MAX ||
			json_integer_value(applied) > json_integer_value(modules))
			return wrong("loras");
		out->of[i].applied = (int)json_integer_value(applied);
		out->of[i].modules = (int)json_integer_value(modules);
	}
	out->n = (int)json_array_size(list);
	return STATUS_OK;
}

static enum status read_done(const json_t *body, struct wire_reply *out)
{
	int64_t memory;

	TRY(read_int(body, "memory", INT64_MAX, &memory));
	out->memory = (uint64_t)memory;
	TRY(read_loaded(body, out));
	TRY(read_loras(body, &out->progress.loras));
	return read_seconds(body, out->progress.seconds);
}

static enum status read_failed(const json_t *body, struct wire_reply *out)
{
	int64_t code;

	TRY(read_int(body, "status", STATUS_COUNT - 1, &code));
	if (code == STATUS_OK)
		return wrong("status");
	out->status = (enum status)code;
	return read_text(body, "text", out->text, sizeof out->text);
}

enum dtype wire_find_dtype(const char *name)
{
	for (int d = 0; d < DTYPE_OTHER; d++)
		if (strcmp(dtype_name((enum dtype)d), name) == 0)
			return (enum dtype)d;
	return DTYPE_OTHER;
}

static enum status read_ready(const json_t *body, struct wire_reply *out)
{
	char dtype[16];

	TRY(read_text(body, "device", out->device, sizeof out->device));
	TRY(read_text(body, "dtype", dtype, sizeof dtype));
	out->about[0] = '\0';
	if (json_object_get(body, "about"))
		TRY(read_text(body, "about", out->about, sizeof out->about));
	out->dtype = wire_find_dtype(dtype);
	if (out->dtype == DTYPE_OTHER)
		return wrong("dtype");
	return *out->device ? STATUS_OK : wrong("device");
}

static enum status read_kind(const json_t *body, enum wire_kind *out)
{
	static const char *const names[] = { [WIRE_READY] = "ready",
		[WIRE_HASHED] = "hashed",
		[WIRE_PROGRESS] = "progress",
		[WIRE_DONE] = "done",
		[WIRE_FAILED] = "failed" };
	char kind[16];

	TRY(read_text(body, "kind", kind, sizeof kind));
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		if (strcmp(kind, names[i]) == 0) {
			*out = (enum wire_kind)i;
			return STATUS_OK;
		}
	}
	return wrong("kind");
}

static enum status read_rest(const json_t *body, struct wire_reply *out)
{
	switch (out->kind) {
	case WIRE_READY:
		return read_ready(body, out);
	case WIRE_HASHED:
		return read_hash(body, out->hash);
	case WIRE_PROGRESS:
		return read_progress(body, &out->progress);
	case WIRE_DONE:
		return read_done(body, out);
	case WIRE_FAILED:
		return read_failed(body, out);
	}
	return wrong("kind");
}

enum status wire_read_reply(const json_t *body, struct wire_reply *out)
{
	struct wire_reply reply = { 0 };
	int64_t id;

	TRY(read_kind(body, &reply.kind));
	TRY(read_int(body, "id", INT64_MAX, &id));
	reply.id = (uint64_t)id;
	TRY(read_rest(body, &reply));
	*out = reply;
	return STATUS_OK;
}

/* The wire between daemon and worker: framing, descriptors, and that nothing a worker can send does harm. */
#include "fs/wire.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/png.h"
#include "fs/picture.h"
#include "tests/unit/check.h"

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	while (dir && readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static uint64_t random_state = 88172645463325252u;

static uint32_t random_below(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state >> 32) % n;
}

/* A wire and the raw other end of its socket pair. */
struct pair {
	struct wire *wire;
	int raw;
};

static struct pair open_pair(size_t receive_max)
{
	struct pair p;
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0 ||
		wire_open(ends[0], receive_max, &p.wire) != STATUS_OK)
		exit(2);
	p.raw = ends[1];
	return p;
}

static void close_raw(struct pair *p)
{
	if (p->raw >= 0)
		close(p->raw);
	p->raw = -1;
}

static void close_pair(struct pair *p)
{
	close_raw(p);
	wire_close(p->wire);
}

/* Appends a frame as a sender would make it. */
static void add_frame(struct bytes *b, uint32_t len, uint32_t n_fds, const char *body)
{
	uint32_t header[2] = { len, n_fds };

	if (bytes_add(b, header, sizeof header) != STATUS_OK || bytes_add(b, body, strlen(body)) != STATUS_OK)
		exit(2);
}

/* What receiving gives after these bytes and the end of the connection. */
static enum status receive_raw(const void *data, size_t len, struct wire_message *m)
{
	struct pair p = open_pair(WIRE_REPLY_MAX);
	enum status status;

	*m = (struct wire_message){ .fd = -1 };
	if (write(p.raw, data, len) != (ssize_t)len)
		exit(2);
	close_raw(&p);
	status = wire_receive(p.wire, -1, m);
	close_pair(&p);
	return status;
}

static enum status receive_frame(uint32_t len, uint32_t n_fds, const char *body)
{
	struct bytes b = { 0 };
	struct wire_message m;
	enum status status;

	add_frame(&b, len, n_fds, body);
	status = receive_raw(b.data, b.len, &m);
	wire_message_fini(&m);
	bytes_free(&b);
	return status;
}

static void test_garbage(void)
{
	struct bytes deep = { 0 };

	CHECK("a good frame is taken", receive_frame(2, 0, "{}") == STATUS_OK);
	CHECK("a frame that is cut off ends the connection", receive_frame(20, 0, "{}") == STATUS_IO);
	CHECK("a header that is cut off ends the connection",
		receive_raw("abc", 3, &(struct wire_message){ 0 }) == STATUS_IO);
	CHECK("a length above the limit is refused", receive_frame(WIRE_REPLY_MAX + 1, 0, "{}") == STATUS_CORRUPT);
	CHECK("a length of 4 GiB is refused", receive_frame(UINT32_MAX, 0, "{}") == STATUS_CORRUPT);
	CHECK("two descriptors are refused", receive_frame(2, 2, "{}") == STATUS_CORRUPT);
	CHECK("a descriptor that was announced and not sent is refused", receive_frame(2, 1, "{}") == STATUS_CORRUPT);
	CHECK("an empty body is refused", receive_frame(0, 0, "") == STATUS_CORRUPT);
	CHECK("a list is refused", receive_frame(2, 0, "[]") == STATUS_CORRUPT);
	CHECK("a key given twice is refused", receive_frame(13, 0, "{\"a\":1,\"a\":2}") == STATUS_CORRUPT);
	CHECK("text after the object is refused", receive_frame(3, 0, "{}x") == STATUS_CORRUPT);
	CHECK("text that is no UTF-8 is refused", receive_frame(9, 0, "{\"a\":\"\xff\"}") == STATUS_CORRUPT);
	for (int i = 0; i < 50000; i++)
		bytes_add(&deep, "[", 1);
	CHECK("50000 nested lists are refused", receive_frame(50000, 0, (char *)deep.data) == STATUS_CORRUPT);
	bytes_free(&deep);
}

static void test_broken_stays_broken(void)
{
	struct pair p = open_pair(WIRE_REPLY_MAX);
	struct wire_message m;
	struct bytes b = { 0 };

	add_frame(&b, 2, 0, "[]");
	add_frame(&b, 2, 0, "{}");
	if (write(p.raw, b.data, b.len) < 0)
		exit(2);
	wire_receive(p.wire, -1, &m);
	CHECK("after garbage nothing more is taken", wire_receive(p.wire, -1, &m) == STATUS_CORRUPT);
	bytes_free(&b);
	close_pair(&p);
}

static void test_timeouts(void)
{
	struct pair p = open_pair(WIRE_REPLY_MAX);
	struct wire_message m;
	json_t *body;

	CHECK("nothing there: no message", wire_receive(p.wire, 0, &m) == STATUS_OK && !m.body);
	CHECK("nothing in time: no message", wire_receive(p.wire, 20, &m) == STATUS_OK && !m.body);
	if (write(p.raw, "\2\0\0\0\0\0\0\0{", 9) != 9)
		exit(2);
	CHECK("half a message: no message", wire_receive(p.wire, 0, &m) == STATUS_OK && !m.body);
	if (write(p.raw, "}", 1) != 1)
		exit(2);
	CHECK("the other half: the message", wire_receive(p.wire, 0, &m) == STATUS_OK && m.body);
	wire_message_fini(&m);
	close_raw(&p);
	body = json_object();
	CHECK("sending to nobody fails", wire_send(p.wire, body, -1) == STATUS_IO);
	json_decref(body);
	close_pair(&p);
}

/* ---- wires at both ends */

struct sender {
	struct wire *wire;
	json_t *body;
	enum status status;
};

static void *send_body(void *argument)
{
	struct sender *s = argument;

	s->status = wire_send(s->wire, s->body, -1);
	return NULL;
}

static void test_long_message(void)
{
	struct pair p = open_pair(WIRE_REQUEST_MAX);
	size_t len = 3 << 20;
	char *text = malloc(len + 1);
	struct sender s = { 0 };
	struct wire_message m = { .fd = -1 };
	pthread_t thread;
	bool same;

	memset(text, '\n', len); /* two bytes each on the wire */
	text[len] = 0;
	s.body = json_pack("{s:s}", "prompt", text);
	if (wire_open(p.raw, 0, &s.wire) != STATUS_OK || pthread_create(&thread, NULL, send_body, &s))
		exit(2);
	same = wire_receive(p.wire, -1, &m) == STATUS_OK && json_equal(m.body, s.body);
	pthread_join(thread, NULL);
	CHECK("6 MiB go through", same && s.status == STATUS_OK);
	wire_message_fini(&m);
	json_decref(s.body);
	memset(text, 1, len); /* six bytes each */
	s.body = json_pack("{s:s}", "prompt", text);
	CHECK("what is longer than the limit is not sent", wire_send(s.wire, s.body, -1) == STATUS_INVALID);
	json_decref(s.body);
	free(text);
	wire_close(s.wire);
	wire_close(p.wire);
}

static bool fd_holds(int fd, const char *text)
{
	char got[32] = "";

	return pread(fd, got, sizeof got - 1, 0) >= 0 && strcmp(got, text) == 0;
}

static void test_descriptors(void)
{
	struct pair p = open_pair(WIRE_REPLY_MAX);
	struct wire_message m[4];
	struct wire *sender;
	bool sent = wire_open(p.raw, 0, &sender) == STATUS_OK;
	char name[32];

	for (int i = 0; i < 4; i++) {
		json_t *body = json_pack("{s:i}", "id", i);
		int fd = memfd_create("test", MFD_CLOEXEC);

		snprintf(name, sizeof name, "file %d", i);
		sent = sent && write(fd, name, strlen(name)) > 0;
		sent = sent && wire_send(sender, body, i % 2 ? fd : -1) == STATUS_OK;
		json_decref(body);
		close(fd);
	}
	CHECK("four messages are sent at once, two with a descriptor", sent);
	for (int i = 0; i < 4; i++) {
		bool got = wire_receive(p.wire, 0, &m[i]) == STATUS_OK && m[i].body;

		snprintf(name, sizeof name, "file %d", i);
		check_case(got && json_integer_value(json_object_get(m[i].body, "id")) == i &&
				   (i % 2 ? fd_holds(m[i].fd, name) : m[i].fd == -1),
			NULL, "message %d has its own descriptor", i);
		if (got)
			wire_message_fini(&m[i]);
	}
	wire_close(sender);
	wire_close(p.wire);
}

/* More descriptors than a wire keeps, with one byte. */
static void test_descriptor_flood(void)
{
	struct pair p = open_pair(WIRE_REPLY_MAX);
	char byte = 0, space[CMSG_SPACE(16 * sizeof(int))] = { 0 };
	struct iovec part = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);
	struct wire_message m;
	int fds[16];

	for (int i = 0; i < 16; i++)
		fds[i] = p.raw;
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof fds);
	memcpy(CMSG_DATA(c), fds, sizeof fds);
	if (sendmsg(p.raw, &message, 0) != 1)
		exit(2);
	CHECK("16 descriptors with one byte are refused", wire_receive(p.wire, 0, &m) == STATUS_CORRUPT);
	close_pair(&p);
}

/* ---- replies */

static const char *const good_replies[] = {
	"{\"kind\":\"ready\",\"id\":1,\"device\":\"cpu\",\"dtype\":\"bf16\"}",
	"{\"kind\":\"hashed\",\"id\":2,\"hash\":\"0123456789abcdef0123456789abcdef\"}",
	"{\"kind\":\"progress\",\"id\":3,\"stage\":2,\"step\":3,\"steps\":8,\"seconds\":[0,0.5,1,0,0]}",
	"{\"kind\":\"done\",\"id\":4,\"seconds\":[0,0.5,1,0,0.25],\"memory\":12345,\"loaded\":["
	"\"0123456789abcdef0123456789abcdef\"],\"loras\":[[3,3],[0,12]]}",
	"{\"kind\":\"failed\",\"id\":5,\"status\":3,\"text\":\"vae: truncated\"}",
};
enum { N_REPLIES = sizeof good_replies / sizeof *good_replies };

static bool reply_is_sane(const struct wire_reply *r)
{
	bool sane = r->kind >= WIRE_READY && r->kind <= WIRE_FAILED && r->progress.step <= r->progress.steps &&
		    r->progress.step >= 0 && r->progress.stage < STAGE_COUNT && r->status < STATUS_COUNT;

	for (int i = 0; i < STAGE_COUNT; i++)
		sane = sane && r->progress.seconds[i] >= 0 && isfinite(r->progress.seconds[i]);
	for (int i = 0; i < r->progress.loras.n; i++)
		sane = sane && r->progress.loras.of[i].applied >= 0 &&
		       r->progress.loras.of[i].applied <= r->progress.loras.of[i].modules;
	if (r->kind == WIRE_HASHED)
		sane = sane && strlen(r->hash) == MODEL_HASH_LEN;
	return sane && (r->kind == WIRE_FAILED) == (r->status != STATUS_OK);
}

static void test_good_replies(void)
{
	struct wire_reply r;

	for (int i = 0; i < N_REPLIES; i++) {
		json_t *body = json_loads(good_replies[i], 0, NULL);

		check_case(wire_read_reply(body, &r) == STATUS_OK && r.id == (uint64_t)i + 1 && (int)r.kind == i &&
				   reply_is_sane(&r),
			NULL, "reply %d is read", i);
		json_decref(body);
	}
}

/* Every value of every reply is replaced by values of all kinds, and left out. */
static void test_wrong_replies(void)
{
	static const char *const values[] = { "null", "-1", "99999999999999", "1.5", "\"\"", "\"x\"", "[]", "{}",
		"true", "[1,2,3,4,-1]", "[1,2,3,4,5,6]", "[1,2,3,4,\"5\"]", "-9223372036854775808",
		"\"0123456789ABCDEF0123456789abcdef\"", "[[1]]", "[[2,1]]", "[[-1,1]]", "[[1,99999999999999]]",
		"[[\"1\",\"1\"]]", "\"a text that is longer than any name of a device or dtype\"" };
	int insane = 0, taken_without = 0, untouched = 0, n = 0;

	for (int i = 0; i < N_REPLIES; i++) {
		json_t *good = json_loads(good_replies[i], 0, NULL), *value;
		const char *key;

		json_object_foreach (good, key, value) {
			json_t *bad = json_deep_copy(good);
			struct wire_reply r = { .id = 777 };

			json_object_del(bad, key);
			taken_without += wire_read_reply(bad, &r) != STATUS_CORRUPT;
			untouched += r.id == 777;
			n++;
			for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
				json_object_set_new(bad, key, json_loads(values[v], JSON_DECODE_ANY, NULL));
				if (wire_read_reply(bad, &r) == STATUS_OK)
					insane += !reply_is_sane(&r);
			}
			json_decref(bad);
		}
		json_decref(good);
	}
	CHECK("a reply that lacks a value is refused", taken_without == 0);
	CHECK("a refused reply leaves the result alone", untouched == n && n > 15);
	CHECK("a reply with a wrong value is refused or harmless", insane == 0);
}

/* ---- random mutations of a stream */

static void mutate(struct bytes *b)
{
	for (uint32_t n = 1 + random_below(4); n > 0 && b->len; n--) {
		uint32_t at = random_below((uint32_t)b->len);

		switch (random_below(4)) {
		case 0:
			b->data[at] ^= (unsigned char)(1u << random_below(8));
			break;
		case 1:
			b->data[at] = (unsigned char)random_below(256);
			break;
		case 2:
			b->len = at;
			break;
		default:
			memmove(b->data + at, b->data + at + 1, b->len - at - 1);
			b->len--;
		}
	}
}

/* Feeds the stream in pieces; counts the messages until the end. Only harm counts: an endless loop, a reply out of
 * range. */
static int feed(const struct bytes *b, bool *harm)
{
	struct pair p = open_pair(WIRE_REPLY_MAX);
	struct wire_message m = { .fd = -1 };
	enum status status = STATUS_OK;
	size_t at = 0;
	int count = 0;

	while (status == STATUS_OK && count < 1000) {
		struct wire_reply r;

		if (at == b->len)
			close_raw(&p);
		status = wire_receive(p.wire, at < b->len ? 0 : -1, &m);
		if (status == STATUS_OK && m.body) {
			count++;
			if (wire_read_reply(m.body, &r) == STATUS_OK)
				*harm = *harm || !reply_is_sane(&r);
			wire_message_fini(&m);
			continue;
		}
		if (at < b->len) {
			size_t piece = 1 + random_below(200);

			piece = piece > b->len - at ? b->len - at : piece;
			if (write(p.raw, b->data + at, piece) > 0)
				at += piece;
		}
	}
	*harm = *harm || count > 100;
	close_pair(&p);
	return count;
}

static void test_mutations(void)
{
	int whole = 0, rounds = 3000;
	bool harm = false;

	for (int i = 0; i < rounds && !harm; i++) {
		struct bytes b = { 0 };

		for (int k = 0; k < N_REPLIES; k++)
			add_frame(&b, (uint32_t)strlen(good_replies[k]), 0, good_replies[k]);
		if (i % 100)
			mutate(&b);
		whole += feed(&b, &harm) == N_REPLIES;
		bytes_free(&b);
	}
	CHECK("3000 damaged streams do no harm", !harm);
	CHECK("undamaged streams come through in any pieces", whole >= rounds / 100);
}

/* ---- pictures */

static enum status map_fd(int fd)
{
	void *png = NULL;
	size_t len = 0;
	enum status status = picture_map(fd, 16, 8, &png, &len);

	picture_unmap(png, len);
	return status;
}

static int unsealed(const struct bytes *png, size_t len)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (write(fd, png->data, len) != (ssize_t)len)
		exit(2);
	return fd;
}

static enum status map_cut(const struct bytes *png, size_t len)
{
	enum status status;
	int fd;

	if (picture_seal(png->data, len, &fd) != STATUS_OK)
		exit(2);
	status = map_fd(fd);
	close(fd);
	return status;
}

static void test_pictures(void)
{
	uint8_t rgb[16 * 8 * 3];
	struct bytes png = { 0 };
	size_t len = 0;
	void *map = NULL;
	int fd, taken = 0;

	for (size_t i = 0; i < sizeof rgb; i++)
		rgb[i] = (uint8_t)(i * 37);
	if (png_encode(rgb, 16, 8, &png) != STATUS_OK || picture_seal(png.data, png.len, &fd) != STATUS_OK)
		exit(2);
	CHECK("a sealed picture comes through",
		picture_map(fd, 16, 8, &map, &len) == STATUS_OK && len == png.len && memcmp(map, png.data, len) == 0);
	picture_unmap(map, len);
	CHECK("it cannot be changed", pwrite(fd, "x", 1, 0) < 0 && ftruncate(fd, 1) < 0);
	CHECK("a picture of another size is refused", picture_map(fd, 8, 16, &map, &len) == STATUS_CORRUPT);
	close(fd);
	fd = unsealed(&png, png.len);
	CHECK("a memory file without seals is refused", map_fd(fd) == STATUS_CORRUPT);
	close(fd);
	fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	CHECK("another file is refused", map_fd(fd) == STATUS_CORRUPT);
	close(fd);
	for (size_t cut = 0; cut < png.len; cut++)
		taken += map_cut(&png, cut) != STATUS_CORRUPT;
	CHECK("a picture that is cut off anywhere is refused", taken == 0);
	bytes_free(&png);
}

int main(void)
{
	int before = count_fds();

	test_garbage();
	test_broken_stays_broken();
	test_timeouts();
	test_long_message();
	test_descriptors();
	test_descriptor_flood();
	test_good_replies();
	test_wrong_replies();
	test_mutations();
	test_pictures();
	CHECK("no descriptor is left open", count_fds() == before);
	return check_result();
}

/* Any bytes from a worker: garbage, or messages, of which the replies are what the daemon may rely on. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fs/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_reply(const json_t *body)
{
	struct wire_reply reply;

	if (wire_read_reply(body, &reply) != STATUS_OK)
		return;
	if (!memchr(reply.text, 0, sizeof reply.text) || !memchr(reply.device, 0, sizeof reply.device) ||
		!memchr(reply.hash, 0, sizeof reply.hash))
		abort();
	if ((reply.kind == WIRE_FAILED && reply.status == STATUS_OK) ||
		(reply.kind == WIRE_READY && reply.dtype == DTYPE_OTHER))
		abort();
}

/* Writes everything, then closes: what remains of a message is the end of the connection. */
static int sender(const uint8_t *data, size_t size)
{
	int pair[2];

	if (size > 1 << 16 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
		return -1;
	if (write(pair[1], data, size) != (ssize_t)size)
		abort();
	close(pair[1]);
	return pair[0];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wire_message message;
	struct wire *w = NULL;
	int fd = sender(data, size);

	if (fd < 0 || wire_open(fd, WIRE_REPLY_MAX, &w) != STATUS_OK)
		return 0;
	while (wire_receive(w, 0, &message) == STATUS_OK && message.body) {
		check_reply(message.body);
		wire_message_fini(&message);
	}
	wire_close(w);
	return 0;
}

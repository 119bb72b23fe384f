/* serve: see serve.h. */
#include "fs/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 4, SPIN_US = 60 };

struct serving {
	struct fuse_session *session;
	pthread_mutex_t lead; /* held by the thread that asks the device */
	int end;              /* an eventfd that wakes the leader when all is over */
	int ended;            /* the same for the thread that waits for the others */
};

static int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Sleeps until there is a request, or the end. */
static void wait_for_request(const struct serving *s)
{
	struct pollfd fds[2] = { { .fd = fuse_session_fd(s->session), .events = POLLIN },
		{ .fd = s->end, .events = POLLIN } };

	poll(fds, 2, -1);
}

/* The next request; false at the end.  Called by the leader. */
static bool receive(const struct serving *s, struct fuse_buf *buf)
{
	int64_t until = now_us() + SPIN_US;

	while (!fuse_session_exited(s->session)) {
		int len = fuse_session_receive_buf(s->session, buf);

		if (len > 0)
			return true;
		if (len == 0) /* unmounted */
			return false;
		if (len != -EAGAIN && len != -EINTR)
			return false;
		if (now_us() >= until) {
			wait_for_request(s);
			until = now_us() + SPIN_US;
		}
	}
	return false;
}

/* Requests that never wait for a disk, or hardly ever. */
static bool is_quick(const struct fuse_buf *buf)
{
	struct fuse_in_header head;

	if ((buf->flags & FUSE_BUF_IS_FD) || buf->size < sizeof(head))
		return false;
	memcpy(&head, buf->mem, sizeof(head));
	switch (head.opcode) {
	case FUSE_LOOKUP:
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_GETATTR:
	case FUSE_OPEN:
	case FUSE_RELEASE:
	case FUSE_INTERRUPT:
		return true;
	default:
		return false;
	}
}

static void *work(void *data)
{
	struct serving *s = data;
	struct fuse_buf buf = { 0 };
	bool more = true;

	while (more) {
		pthread_mutex_lock(&s->lead);
		while ((more = receive(s, &buf)) && is_quick(&buf))
			fuse_session_process_buf(s->session, &buf);
		pthread_mutex_unlock(&s->lead);
		if (more)
			fuse_session_process_buf(s->session, &buf);
	}
	free(buf.mem);
	eventfd_write(s->end, 1);
	eventfd_write(s->ended, 1);
	return NULL;
}

/* Signals end the session in the thread that called serve_session; it then wakes the leader. */
static void wait_for_end(const struct serving *s)
{
	struct pollfd fd = { .fd = s->ended, .events = POLLIN };

	/* the time limit is for a signal that comes between the question and the sleep */
	while (!fuse_session_exited(s->session) && poll(&fd, 1, 500) <= 0)
		;
	eventfd_write(s->end, 1);
}

static int start_threads(struct serving *s, pthread_t threads[THREADS])
{
	sigset_t all, before;
	int n = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	while (n < THREADS && pthread_create(&threads[n], NULL, work, s) == 0)
		n++;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return n;
}

enum status serve_session(struct fuse_session *session)
{
	struct serving s = { .session = session, .lead = PTHREAD_MUTEX_INITIALIZER };
	int fd = fuse_session_fd(session), n;
	pthread_t threads[THREADS];

	s.end = eventfd(0, EFD_CLOEXEC);
	s.ended = eventfd(0, EFD_CLOEXEC);
	if (s.end < 0 || s.ended < 0 || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
		return status_fail(STATUS_IO, "the kernel's FUSE device: %s", strerror(errno));
	n = start_threads(&s, threads);
	if (n > 0)
		wait_for_end(&s);
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	close(s.end);
	close(s.ended);
	return n > 0 ? STATUS_OK : status_fail(STATUS_NO_MEMORY, "cannot start a thread");
}

/* shim: fibres for threads.  This file is compiled without sanitizers, and tells them what it does. */
#include "shim.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif

extern "C" {
#include "engine/fp8.h"

/* Of the sanitizers' run time, where one is linked. */
#define WEAK __attribute__((weak))
void __sanitizer_start_switch_fiber(void **fake_stack, const void *bottom, size_t size) WEAK;
void __sanitizer_finish_switch_fiber(void *fake_stack, const void **bottom, size_t *size) WEAK;
void *__tsan_get_current_fiber(void) WEAK;
void *__tsan_create_fiber(unsigned flags) WEAK;
void __tsan_switch_to_fiber(void *fiber, unsigned flags) WEAK;
void __tsan_acquire(void *at) WEAK;
void __tsan_release(void *at) WEAK;
void __tsan_ignore_thread_begin(void) WEAK;
void __tsan_ignore_thread_end(void) WEAK;
}

dim3 gridDim, blockDim, blockIdx, threadIdx;

enum { WARP = 32, THREADS_MAX = 1024, STACK_LEN = 256 << 10, TSAN_NO_SYNC = 1 };

[[noreturn]] static void fail(const char *what)
{
	fprintf(stderr, "shim: block (%u, %u, %u) thread (%u, %u, %u): %s\n", blockIdx.x, blockIdx.y, blockIdx.z,
		threadIdx.x, threadIdx.y, threadIdx.z, what);
	abort();
}

/* ---- fibres ------------------------------------------------------------------------------------------------------ */

struct fibre {
	void *sp; /* while it does not run */
#ifndef __x86_64__
	ucontext_t context;
#endif
	const void *stack;
	size_t stack_len;
	void *fake_stack; /* AddressSanitizer's */
	void *tsan;
};

#ifdef __x86_64__
/* Keeps what a call must keep on the stack of the fibre that stops, and takes it from the stack of the next. */
extern "C" void shim_switch(void **from, void *to);
__asm__(".text\n"
	".type shim_switch, @function\n"
	"shim_switch:\n"
	"	pushq %rbp\n	pushq %rbx\n	pushq %r12\n	pushq %r13\n	pushq %r14\n	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	popq %r15\n	popq %r14\n	popq %r13\n	popq %r12\n	popq %rbx\n	popq %rbp\n"
	"	ret\n"
	".size shim_switch, . - shim_switch\n");

static void fibre_prepare(struct fibre *f, void (*entry)(void))
{
	void **sp = (void **)((char *)f->stack + f->stack_len);

	*--sp = NULL; /* entry finds the stack as after a call */
	*--sp = (void *)entry;
	for (int i = 0; i < 6; i++)
		*--sp = NULL;
	f->sp = sp;
}

static void fibre_jump(struct fibre *from, struct fibre *to)
{
	shim_switch(&from->sp, to->sp);
}
#else
static void fibre_prepare(struct fibre *f, void (*entry)(void))
{
	getcontext(&f->context);
	f->context.uc_stack.ss_sp = (void *)f->stack;
	f->context.uc_stack.ss_size = f->stack_len;
	makecontext(&f->context, entry, 0);
}

static void fibre_jump(struct fibre *from, struct fibre *to)
{
	swapcontext(&from->context, &to->context);
}
#endif

static void fibre_switch(struct fibre *from, struct fibre *to)
{
	if (__sanitizer_start_switch_fiber)
		__sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_len);
	if (__tsan_switch_to_fiber)
		__tsan_switch_to_fiber(to->tsan, TSAN_NO_SYNC);
	fibre_jump(from, to);
	if (__sanitizer_finish_switch_fiber)
		__sanitizer_finish_switch_fiber(from->fake_stack, NULL, NULL);
}

/* ---- a block ----------------------------------------------------------------------------------------------------- */

/* Where threads meet.  Two places for ThreadSanitizer, taken in turns: one that leaves meeting k must not be ordered
 * after what others do before meeting k + 1. */
struct meeting {
	unsigned arrived, size, round;
	char order[2];
};

struct lane {
	struct fibre *fibre;
	bool finished;
	const struct meeting *waits; /* for the end of this meeting's round `round` */
	unsigned round;
	unsigned exchanges;
	alignas(8) unsigned char slot[2][8];
	size_t slot_len[2];
};

static struct {
	struct fibre home, fibres[THREADS_MAX];
	unsigned made;
	struct lane lanes[THREADS_MAX];
	unsigned count, finished, current;
	bool backwards; /* the order in which threads get their turns */
	struct meeting all, warps[THREADS_MAX / WARP];
	void (*run)(const void *);
	const void *closure;
	unsigned blocks; /* begun, in all launches */
	char begin, end; /* ThreadSanitizer's */
} shim;

static void order(void (*f)(void *), void *at)
{
	if (f)
		f(at);
}

static dim3 index_of(unsigned thread)
{
	return dim3(thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y);
}

static bool can_run(const struct lane *l)
{
	return !l->finished && (!l->waits || l->waits->round != l->round);
}

/* The next thread that can run, or the caller of shim_launch when all have finished. */
static struct fibre *next_fibre(void)
{
	const unsigned n = shim.count, step = shim.backwards ? n - 1 : 1;
	unsigned at = shim.current;

	if (shim.finished == n)
		return &shim.home;
	for (unsigned i = 0; i < n; i++) {
		at = (at + step) % n;
		if (can_run(&shim.lanes[at])) {
			shim.current = at;
			threadIdx = index_of(at);
			return shim.lanes[at].fibre;
		}
	}
	fail("waits for threads that have finished or wait elsewhere");
}

static void thread_main(void)
{
	const void *bottom = NULL;
	size_t len = 0;

	if (__sanitizer_finish_switch_fiber)
		__sanitizer_finish_switch_fiber(NULL, &bottom, &len);
	if (!shim.home.stack) { /* this is the first of all: it comes from there */
		shim.home.stack = bottom;
		shim.home.stack_len = len;
	}
	for (;;) {
		struct fibre *self = shim.lanes[shim.current].fibre;

		order(__tsan_acquire, &shim.begin);
		shim.run(shim.closure);
		order(__tsan_release, &shim.end);
		shim.lanes[shim.current].finished = true;
		shim.finished++;
		fibre_switch(self, next_fibre());
	}
}

static void make_fibre(struct fibre *f)
{
	void *stack = mmap(NULL, STACK_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (stack == MAP_FAILED)
		fail("no memory for a stack");
	f->stack = stack;
	f->stack_len = STACK_LEN;
	if (__tsan_create_fiber)
		f->tsan = __tsan_create_fiber(0);
	fibre_prepare(f, thread_main);
}

/* Fibres change their threads from block to block, so that two threads of two blocks seldom look like one. */
static void run_block(void)
{
	const unsigned shift = shim.blocks * 37;

	for (unsigned i = 0; i < shim.count; i++)
		shim.lanes[i] = {};
	for (unsigned i = 0; i < shim.count; i++)
		shim.lanes[i].fibre = &shim.fibres[(i + shift) % shim.count];
	shim.all.size = shim.count;
	for (unsigned i = 0; i < shim.count; i += WARP)
		shim.warps[i / WARP].size = shim.count - i < WARP ? shim.count - i : (unsigned)WARP;
	shim.blocks++;
	shim.finished = 0;
	shim.backwards = shim.blocks & 2;
	shim.current = shim.blocks * 5 % shim.count;
	fibre_switch(&shim.home, next_fibre());
	if (shim.all.arrived)
		fail("a barrier was left unfinished");
}

struct call {
	dim3 grid, block;
	void (*run)(const void *);
	alignas(16) char closure[1024];
};

void (*shim_enqueue)(void (*run)(const void *data), const void *data, size_t size);

static void run_call(const void *data)
{
	static unsigned launches;
	const struct call *c = static_cast<const struct call *>(data);
	const unsigned n = c->block.x * c->block.y * c->block.z, blocks = c->grid.x * c->grid.y * c->grid.z;

	gridDim = c->grid;
	blockDim = c->block;
	shim.count = n;
	shim.run = c->run;
	shim.closure = c->closure;
	if (__tsan_get_current_fiber)
		shim.home.tsan = __tsan_get_current_fiber();
	for (; shim.made < n; shim.made++)
		make_fibre(&shim.fibres[shim.made]);
	launches++;
	order(__tsan_release, &shim.begin);
	for (unsigned i = 0; i < blocks; i++) {
		const unsigned b = launches % 2 ? i : blocks - 1 - i;

		blockIdx = dim3(b % c->grid.x, b / c->grid.x % c->grid.y, b / c->grid.x / c->grid.y);
		run_block();
	}
	order(__tsan_acquire, &shim.end);
}

int shim_launch(dim3 grid, dim3 block, void (*run)(const void *), const void *closure, size_t size)
{
	const unsigned n = block.x * block.y * block.z, blocks = grid.x * grid.y * grid.z;
	struct call call = { grid, block, run, {} };

	if (n < 1 || n > THREADS_MAX || blocks < 1 || grid.y > 65535 || grid.z > 65535 || block.z > 64)
		return cudaErrorInvalidConfiguration;
	if (size > sizeof call.closure)
		fail("a kernel with too many arguments");
	memcpy(call.closure, closure, size);
	if (shim_enqueue)
		shim_enqueue(run_call, &call, sizeof call);
	else
		run_call(&call);
	return cudaSuccess;
}

/* ---- meetings ---------------------------------------------------------------------------------------------------- */

static void meet(struct meeting *m, bool ordered)
{
	struct lane *self = &shim.lanes[shim.current];
	char *place = &m->order[m->round % 2];

	if (ordered)
		order(__tsan_release, place);
	if (++m->arrived == m->size) {
		m->arrived = 0;
		m->round++;
	} else {
		self->waits = m;
		self->round = m->round;
		fibre_switch(self->fibre, next_fibre());
		self->waits = NULL;
	}
	if (ordered)
		order(__tsan_acquire, place);
}

void shim_barrier(void)
{
	meet(&shim.all, true);
}

void shim_warp_barrier(void)
{
	meet(&shim.warps[shim.current / WARP], true);
}

unsigned shim_lane(void)
{
	return shim.current % WARP;
}

/* Not memcpy, which ThreadSanitizer watches in this file too. */
static void copy(void *to, const void *from, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((volatile unsigned char *)to)[i] = ((const unsigned char *)from)[i];
}

/* Slots are taken in turns, as a lane may come to the next exchange before others have read this one.  A shuffle orders
 * no memory. */
void shim_exchange(unsigned mask, const void *give, void *take, size_t len, unsigned from)
{
	struct lane *self = &shim.lanes[shim.current], *other = self - shim.current % WARP + from;
	const unsigned turn = self->exchanges++ % 2;

	if (mask != 0xffffffffu || from >= WARP)
		fail("a shuffle of some lanes only");
	copy(self->slot[turn], give, len);
	self->slot_len[turn] = len;
	meet(&shim.warps[shim.current / WARP], false);
	if (other - shim.lanes >= shim.count || other->exchanges - self->exchanges > 1 || other->slot_len[turn] != len)
		fail("a shuffle from a lane that does something else");
	copy(take, other->slot[turn], len);
}

/* Each block has its own: nothing that another did with the same address orders or races with anything. */
void *shim_shared(struct shim_array *array, size_t len)
{
	if (array->block == shim.blocks)
		return array->data;
	if (__tsan_ignore_thread_begin)
		__tsan_ignore_thread_begin();
	free(array->data);
	array->data = malloc(len);
	if (__tsan_ignore_thread_end)
		__tsan_ignore_thread_end();
	if (!array->data)
		fail("no shared memory");
	for (size_t i = 0; i < len; i++)
		((volatile unsigned char *)array->data)[i] = 0xff;
	array->block = shim.blocks;
	return array->data;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

uint16_t bf16_from_f32_bits(float x)
{
	return bf16_from_f32(x);
}

float f16_bits_to_f32(uint16_t bits)
{
	return f16_to_f32(bits);
}

uint8_t e4m3_from_f32_bits(float x)
{
	return e4m3_from_f32(x);
}

float e4m3_bits_to_f32(uint8_t bits)
{
	return e4m3_to_f32(bits);
}

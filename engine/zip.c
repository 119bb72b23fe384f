/* zip: central directory, then the local header of every member. */
#include "engine/zip.h"

#include <stdlib.h>
#include <string.h>

enum {
	END_SIGNATURE = 0x06054b50,
	END_LEN = 22,
	END64_SIGNATURE = 0x06064b50,
	END64_LEN = 56,
	LOCATOR_SIGNATURE = 0x07064b50,
	LOCATOR_LEN = 20,
	ENTRY_SIGNATURE = 0x02014b50,
	ENTRY_LEN = 46,
	LOCAL_SIGNATURE = 0x04034b50,
	LOCAL_LEN = 30,
	COMMENT_MAX = 65535,
	EXTRA_64 = 1,
};

static uint64_t number(const unsigned char *p, int bytes)
{
	uint64_t x = 0;

	while (bytes--)
		x = x << 8 | p[bytes];
	return x;
}

struct directory {
	uint64_t offset, len, count;
};

static enum status fail_short(void)
{
	return status_fail(STATUS_CORRUPT, "no zip file, or a truncated one: its directory is not at its end");
}

/* Large files have a second end record, which the locator before the first one points to. */
static enum status read_end64(const unsigned char *file, size_t size, size_t end, struct directory *d)
{
	uint64_t at;

	if (end < LOCATOR_LEN || number(file + end - LOCATOR_LEN, 4) != LOCATOR_SIGNATURE)
		return STATUS_OK;
	at = number(file + end - LOCATOR_LEN + 8, 8);
	if (size < END64_LEN || at > size - END64_LEN || number(file + at, 4) != END64_SIGNATURE)
		return fail_short();
	d->count = number(file + at + 32, 8);
	d->len = number(file + at + 40, 8);
	d->offset = number(file + at + 48, 8);
	return STATUS_OK;
}

static enum status find_directory(const unsigned char *file, size_t size, struct directory *d)
{
	size_t lowest, at;

	if (size < END_LEN)
		return fail_short();
	lowest = size > END_LEN + COMMENT_MAX ? size - END_LEN - COMMENT_MAX : 0;
	for (at = size - END_LEN; number(file + at, 4) != END_SIGNATURE; at--)
		if (at == lowest)
			return fail_short();
	d->count = number(file + at + 10, 2);
	d->len = number(file + at + 12, 4);
	d->offset = number(file + at + 16, 4);
	TRY(read_end64(file, size, at, d));
	if (d->offset > size || d->len > size - d->offset || d->count > d->len / ENTRY_LEN)
		return status_fail(STATUS_CORRUPT, "a zip directory of %llu members at offset %llu does not fit",
			(unsigned long long)d->count, (unsigned long long)d->offset);
	return STATUS_OK;
}

/* A field of the 64-bit extension, where the entry's own says "all ones". */
static uint64_t wide(uint64_t value, const unsigned char **extra, const unsigned char *end)
{
	if (value != UINT32_MAX || end - *extra < 8)
		return value;
	*extra += 8;
	return number(*extra - 8, 8);
}

struct entry {
	uint64_t offset, packed, len;
};

static void read_sizes(const unsigned char *p, const unsigned char *extra, size_t extra_len, struct entry *e)
{
	const unsigned char *end = extra + extra_len, *at = end;
	size_t len = 0;

	for (; (size_t)(end - extra) >= 4; extra += 4 + len) {
		len = number(extra + 2, 2);
		if (len > (size_t)(end - extra) - 4)
			break;
		if (number(extra, 2) == EXTRA_64) {
			at = extra + 4;
			end = at + len;
			break;
		}
	}
	e->len = wide(number(p + 24, 4), &at, end);
	e->packed = wide(number(p + 20, 4), &at, end);
	e->offset = wide(number(p + 42, 4), &at, end);
}

static enum status read_local(const unsigned char *file, size_t size, const struct entry *e, struct zip_member *m)
{
	uint64_t skip;

	if (size < LOCAL_LEN || e->offset > size - LOCAL_LEN || number(file + e->offset, 4) != LOCAL_SIGNATURE)
		return status_fail(STATUS_CORRUPT, "zip member %.*s: its header is not there",
			(int)(m->name_len < 80 ? m->name_len : 80), m->name);
	skip = LOCAL_LEN + number(file + e->offset + 26, 2) + number(file + e->offset + 28, 2);
	if (skip > size - e->offset || e->len > size - e->offset - skip)
		return status_fail(STATUS_CORRUPT, "zip member %.*s: its data ends beyond the file: truncated",
			(int)(m->name_len < 80 ? m->name_len : 80), m->name);
	m->data = file + e->offset + skip;
	m->len = (size_t)e->len;
	return STATUS_OK;
}

static enum status check_name(const struct zip_member *m)
{
	for (size_t i = 0; i < m->name_len; i++)
		if ((unsigned char)m->name[i] < ' ' || m->name[i] == 127)
			return status_fail(STATUS_CORRUPT, "the name of a zip member holds a control character");
	return STATUS_OK;
}

/* Takes an entry from the directory. */
static enum status read_entry(const unsigned char *file, size_t size, const unsigned char **at,
	const unsigned char *end, struct zip_member *m)
{
	const unsigned char *p = *at;
	size_t name_len, extra_len, comment_len;
	struct entry e;

	if (end - p < ENTRY_LEN || number(p, 4) != ENTRY_SIGNATURE)
		return status_fail(STATUS_CORRUPT, "the zip directory is damaged");
	name_len = number(p + 28, 2);
	extra_len = number(p + 30, 2);
	comment_len = number(p + 32, 2);
	if (name_len + extra_len + comment_len > (size_t)(end - p) - ENTRY_LEN)
		return status_fail(STATUS_CORRUPT, "the zip directory is truncated");
	m->name = (const char *)p + ENTRY_LEN;
	m->name_len = name_len;
	TRY(check_name(m));
	read_sizes(p, p + ENTRY_LEN + name_len, extra_len, &e);
	if (number(p + 10, 2) != 0 || e.packed != e.len)
		return status_fail(STATUS_UNSUPPORTED, "zip member %.*s is compressed; torch.save stores them",
			(int)(name_len < 80 ? name_len : 80), m->name);
	*at = p + ENTRY_LEN + name_len + extra_len + comment_len;
	return read_local(file, size, &e, m);
}

static int compare_members(const void *a, const void *b)
{
	const struct zip_member *x = a, *y = b;
	int order = memcmp(x->name, y->name, x->name_len < y->name_len ? x->name_len : y->name_len);

	return order ? order : (x->name_len > y->name_len) - (x->name_len < y->name_len);
}

enum status zip_open(const unsigned char *file, size_t size, struct zip *out)
{
	struct directory d = { 0, 0, 0 };
	const unsigned char *at;
	struct zip z = { NULL, 0 };
	enum status status = STATUS_OK;

	TRY(find_directory(file, size, &d));
	z.member = calloc((size_t)d.count + 1, sizeof *z.member);
	if (!z.member)
		return status_fail(STATUS_NO_MEMORY, "no memory for a zip directory");
	at = file + d.offset;
	for (; (uint64_t)z.count < d.count && status == STATUS_OK; z.count++)
		status = read_entry(file, size, &at, file + d.offset + d.len, &z.member[z.count]);
	if (status != STATUS_OK) {
		zip_free(&z);
		return status;
	}
	qsort(z.member, (size_t)z.count, sizeof *z.member, compare_members);
	*out = z;
	return STATUS_OK;
}

const struct zip_member *zip_find(const struct zip *z, const char *name, size_t len)
{
	struct zip_member key = { name, len, NULL, 0 };

	return bsearch(&key, z->member, (size_t)z->count, sizeof key, compare_members);
}

void zip_free(struct zip *z)
{
	free(z->member);
	*z = (struct zip){ NULL, 0 };
}

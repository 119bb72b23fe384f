/* errnos: see errnos.h. */
#include "fs/errnos.h"

#include <errno.h>

static const int table[STATUS_COUNT] = {
	[STATUS_OK] = 0,
	[STATUS_INVALID] = EINVAL,
	[STATUS_NO_MODEL] = ENODEV,
	[STATUS_CORRUPT] = EIO,
	[STATUS_UNSUPPORTED] = EINVAL,
	[STATUS_NO_MEMORY] = ENOMEM,
	[STATUS_IO] = EIO,
	[STATUS_CANCELLED] = ECANCELED,
	[STATUS_NUMERIC] = EIO,
	[STATUS_DEVICE] = EIO,
	[STATUS_INTERNAL] = EIO,
};

int errno_of_status(enum status status)
{
	if ((unsigned)status >= STATUS_COUNT)
		return EIO;
	return table[status];
}

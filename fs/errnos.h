/* errnos: the one table from our statuses to the errno that a caller of open(), write() ... sees. */
#ifndef PROMPTFS_FS_ERRNOS_H
#define PROMPTFS_FS_ERRNOS_H

#include "kernels/status.h"

/* 0 for STATUS_OK; EIO for whatever has no better name. */
int errno_of_status(enum status status);

#endif

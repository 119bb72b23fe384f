/* status: how every module above and including kernels/ reports failure.
 *
 * A fallible function returns `enum status`; on failure it also leaves one sentence (what, where, what to do) in a
 * per-thread text, without a newline.  Out-parameters are untouched on failure.
 *
 *     TRY(weights_open(path, &w));                       // forwards the failure and its text
 *     return status_fail(STATUS_CORRUPT, "%s: header is no JSON", path);
 *
 * Threads: the text belongs to the calling thread; copy it before handing a failure to another one.
 */
#ifndef PROMPTFS_KERNELS_STATUS_H
#define PROMPTFS_KERNELS_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

enum status {
	STATUS_OK = 0,
	STATUS_INVALID,     /* the caller's parameters are wrong (a prompt file, an option) */
	STATUS_NO_MODEL,    /* no such model, or its files are missing */
	STATUS_CORRUPT,     /* a file is malformed, truncated, of the wrong shape, or holds NaN */
	STATUS_UNSUPPORTED, /* well-formed, but this build or device cannot do it */
	STATUS_NO_MEMORY,   /* does not fit; the text has the figures */
	STATUS_IO,          /* the system refused a file operation */
	STATUS_CANCELLED,   /* the job's cancel flag was set */
	STATUS_NUMERIC,     /* the computation gave NaN or infinity */
	STATUS_DEVICE,      /* the accelerator failed */
	STATUS_INTERNAL,    /* a bug of ours */
	STATUS_COUNT
};

/* Stores the text and returns `code`.  printf-style. */
enum status status_fail(enum status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts a prefix before the text of the failure under way ("vae/config.json: ..."), and returns `code` unchanged. */
enum status status_prefix(enum status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The calling thread's last text; "" if none.  Borrowed until the next failure on this thread. */
const char *status_text(void);

/* "invalid", "no model", ...; for logs and metrics. */
const char *status_name(enum status code);

/* Makes blanks of control characters (those of two bytes, U+0080 to U+009F, too): names from files and prompts may hold
 * anything, a message is one line and commands no terminal. */
void status_clean(char *line);

#define TRY(expression)                                                                                                \
	do {                                                                                                           \
		enum status try_status = (expression);                                                                 \
		if (try_status != STATUS_OK)                                                                           \
			return try_status;                                                                             \
	} while (0)

#ifdef __cplusplus
}
#endif
#endif

package nbd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"drover"
)

// errno is an error number on the wire; the numbers are the protocol's, not the system's (section "Error values").
type errno uint32

const (
	errnoNone     errno = 0
	errnoPerm     errno = 1
	errnoIO       errno = 5
	errnoNoMem    errno = 12
	errnoInval    errno = 22
	errnoNoSpace  errno = 28
	errnoOverflow errno = 75
	errnoNotSup   errno = 95
	errnoShutdown errno = 108
)

// errnoOf translates a Backend's error for the client.
func errnoOf(err error) errno {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return errnoShutdown
	}
	switch drover.CodeOf(err) {
	case "":
		return errnoNone
	case drover.Denied:
		return errnoPerm
	case drover.Exhausted:
		return errnoNoSpace
	case drover.Invalid:
		return errnoInval
	case drover.Unavailable, drover.Canceled:
		return errnoShutdown
	default:
		return errnoIO
	}
}

// code translates a server's error number for the caller of a Client.
func (e errno) code() drover.Code {
	switch e {
	case errnoPerm:
		return drover.Denied
	case errnoNoSpace, errnoNoMem:
		return drover.Exhausted
	case errnoInval, errnoOverflow, errnoNotSup:
		return drover.Invalid
	case errnoShutdown:
		return drover.Unavailable
	default:
		return drover.Internal
	}
}

// String names the number as the protocol does.
func (e errno) String() string {
	switch e {
	case errnoPerm:
		return "NBD_EPERM"
	case errnoIO:
		return "NBD_EIO"
	case errnoNoMem:
		return "NBD_ENOMEM"
	case errnoInval:
		return "NBD_EINVAL"
	case errnoNoSpace:
		return "NBD_ENOSPC"
	case errnoOverflow:
		return "NBD_EOVERFLOW"
	case errnoNotSup:
		return "NBD_ENOTSUP"
	case errnoShutdown:
		return "NBD_ESHUTDOWN"
	}
	return fmt.Sprintf("error %d", uint32(e))
}

// optionError is an Opener's error on its way to the client in the option phase: the protocol's reply and a message. Several codes
// share one reply; a code that the reply does not imply (see code) stands at the end of the message in brackets, where a
// person can read it and a Client finds it.
func optionError(err error) (optionReply, string) {
	code := drover.CodeOf(err)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		code = drover.Unavailable
	}
	rep := repErrPolicy
	switch code {
	case drover.NotFound:
		rep = repErrUnknown
	case drover.Invalid:
		rep = repErrInvalid
	case drover.Unavailable, drover.Canceled:
		rep = repErrShutdown
	case drover.Internal:
		rep = repErrPlatform
	}
	mark := ""
	if rep.code() != code {
		mark = " [" + string(code) + "]"
	}
	return rep, cutText(err.Error(), maxString-len(mark)) + mark
}

// code is what an error reply means when the message does not tell more.
func (r optionReply) code() drover.Code {
	switch r {
	case repErrUnknown:
		return drover.NotFound
	case repErrPolicy, repErrTLSReqd:
		return drover.Denied
	case repErrInvalid, repErrTooBig:
		return drover.Invalid
	case repErrShutdown:
		return drover.Unavailable
	case repErrUnsup:
		return drover.Precondition
	default:
		return drover.Internal
	}
}

// parseOptionError takes an error reply apart again.
func parseOptionError(rep optionReply, message string) (drover.Code, string) {
	text := strings.ToValidUTF8(message, "?")
	if at := strings.LastIndex(text, " ["); at >= 0 && strings.HasSuffix(text, "]") {
		for _, code := range drover.Codes {
			if string(code) == text[at+2:len(text)-1] {
				return code, text[:at]
			}
		}
	}
	if text == "" {
		text = fmt.Sprintf("the server gives no reason (reply %#x)", uint32(rep))
	}
	return rep.code(), text
}

// cutText shortens a text to at most n bytes, between characters.
func cutText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// Package macaroons makes and checks tokens that whoever has one can narrow, without asking anybody, and nobody can widen. They are macaroons in
// the second format of libmacaroons, so that tools of other languages can narrow them too. It does no I/O and keeps no key.
//
// A token's text is "drvm_" and the macaroon in URL-safe base64. Its identifier names the root key and the token; every caveat is the text of a
// drover.Caveat. Caveats that a third party would have to discharge are refused: clients would ask it with the token in hand.
package macaroons

// Package storetest is for tests of and with object stores: the suite that every drover.ObjectStore passes, and a store in memory that
// fails, is slow, forgets and flips bytes when it is told to. It is imported by tests only.
package storetest

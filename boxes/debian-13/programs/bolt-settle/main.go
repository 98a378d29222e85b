// bolt-settle SECONDS FILE... rewrites containerd's databases so that equal content makes equal bytes.
//
// containerd notes when each image, blob and snapshot was created, and a bolt database's
// pages lie in the order in which they were written. Here every date becomes the same and
// every key is written once, in order, into a fresh file.
package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"go.etcd.io/bbolt"
)

func main() {
	if len(os.Args) < 3 {
		fail(fmt.Errorf("usage: bolt-settle SECONDS FILE..."))
	}
	seconds, err := strconv.ParseInt(os.Args[1], 10, 64)
	if err != nil {
		fail(err)
	}
	// As containerd writes dates (metadata/boltutil, WriteTimestamps).
	date, err := time.Unix(seconds, 0).UTC().MarshalBinary()
	if err != nil {
		fail(err)
	}
	for _, path := range os.Args[2:] {
		if err := settle(path, date); err != nil {
			fail(fmt.Errorf("%s: %w", path, err))
		}
	}
}

func settle(path string, date []byte) error {
	fresh := path + ".settled"
	from, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := bbolt.Open(fresh, 0o644, &bbolt.Options{Timeout: time.Second, NoSync: true})
	if err != nil {
		return err
	}
	err = from.View(func(source *bbolt.Tx) error {
		return source.ForEach(func(name []byte, bucket *bbolt.Bucket) error {
			return copyBucket(bucket, to, [][]byte{name}, date)
		})
	})
	if err == nil {
		err = to.Sync()
	}
	if err != nil {
		to.Close()
		return err
	}
	if err := to.Close(); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := os.Chmod(fresh, info.Mode()); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}

// One transaction for each bucket: bolt writes the buckets that a transaction opened in the
// random order of a Go map.
func copyBucket(source *bbolt.Bucket, to *bbolt.DB, path [][]byte, date []byte) error {
	err := to.Update(func(tx *bbolt.Tx) error {
		target, err := tx.CreateBucketIfNotExists(path[0])
		for _, name := range path[1:] {
			if err != nil {
				return err
			}
			target, err = target.CreateBucketIfNotExists(name)
		}
		if err != nil {
			return err
		}
		if err := target.SetSequence(source.Sequence()); err != nil {
			return err
		}
		return source.ForEach(func(key, value []byte) error {
			if value == nil {
				return nil
			}
			if name := string(key); name == "createdat" || name == "updatedat" {
				value = date
			}
			return target.Put(key, value)
		})
	})
	if err != nil {
		return err
	}
	return source.ForEachBucket(func(key []byte) error {
		return copyBucket(source.Bucket(key), to, append(path[:len(path):len(path)], key), date)
	})
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bolt-settle:", err)
	os.Exit(1)
}

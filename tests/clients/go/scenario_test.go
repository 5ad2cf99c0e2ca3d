// Package scenario is the scenario of ../README.md by the Go client.
package scenario

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "tandem.example/scenario/generated/tandem/v1"
)

const deadline = 30 * time.Second

// must hands back a call's answer, or ends the test.
func must[T any](answer T, err error) T {
	if err != nil {
		panic(err)
	}
	return answer
}

// expect ends the test where something is not as it should be.
func expect(t *testing.T, holds bool, found any) {
	t.Helper()
	if !holds {
		t.Fatalf("found %v", found)
	}
}

// refused checks a refusal whole and hands back its metadata.
func refused(t *testing.T, err error, code codes.Code, reason string, metadata map[string]string) map[string]string {
	t.Helper()
	refusal := status.Convert(err)
	expect(t, refusal.Code() == code, err)
	expect(t, strings.HasPrefix(refusal.Message(), reason+": "), refusal.Message())
	var infos []*errdetails.ErrorInfo
	for _, detail := range refusal.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			infos = append(infos, info)
		}
	}
	expect(t, len(infos) == 1, refusal.Details())
	expect(t, infos[0].Reason == reason && infos[0].Domain == "tandem", infos[0])
	for key, value := range metadata {
		expect(t, infos[0].Metadata[key] == value, infos[0])
	}
	return infos[0].Metadata
}

// nextChange reads a watch up to its next change, which is alone in its message.
func nextChange(t *testing.T, watch grpc.ServerStreamingClient[pb.WatchResponse]) *pb.Event {
	t.Helper()
	for {
		message := must(watch.Recv())
		if len(message.Events) == 0 {
			continue
		}
		expect(t, len(message.Events) == 1, message)
		expect(t, message.Events[0].Entry.Revision == message.Revision, message)
		return message.Events[0]
	}
}

func expectChange(t *testing.T, event *pb.Event, kind pb.EventKind, key, value string, revision uint64) {
	t.Helper()
	expect(t, event.Kind == kind && string(event.Entry.Key) == key, event)
	expect(t, string(event.Entry.Value) == value && event.Entry.Revision == revision, event)
}

func ifRevision(revision uint64) []*pb.Condition {
	return []*pb.Condition{{Kind: &pb.Condition_Revision{Revision: revision}}}
}

func TestScenario(t *testing.T) {
	plaintext := grpc.WithTransportCredentials(insecure.NewCredentials())
	connection := must(grpc.NewClient(os.Getenv("TANDEM_GRPC_ADDRESS"), plaintext))
	defer connection.Close()
	store := pb.NewKvServiceClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	put := func(request *pb.PutRequest) *pb.PutResponse { return must(store.Put(ctx, request)) }
	apple, leek := []byte("fruit/apple"), []byte("vegetable/leek")
	fruit := &pb.KeyRange{Kind: &pb.KeyRange_Prefix{Prefix: []byte("fruit/")}}

	// 1
	first := put(&pb.PutRequest{Key: apple, Value: []byte("red"), ContentType: "text/plain"})
	r1 := first.Result.Revision
	expect(t, first.Created && first.Version == 1 && r1 > 0, first)
	expect(t, first.Result.Durability == pb.Durability_DURABILITY_FSYNCED, first)

	// 2
	absent := []*pb.Condition{{Kind: &pb.Condition_Exists{Exists: false}}}
	_, err := store.Put(ctx, &pb.PutRequest{Key: apple, Value: []byte("blue"), Conditions: absent})
	refused(t, err, codes.AlreadyExists, "KEY_EXISTS",
		map[string]string{"current_revision": strconv.FormatUint(r1, 10), "outcome": "NOT_APPLIED"})

	// 3
	swapped := put(&pb.PutRequest{Key: apple, Value: []byte("green"), Conditions: ifRevision(r1), ReturnPrevious: true})
	r3 := swapped.Result.Revision
	expect(t, !swapped.Created && swapped.Version == 2 && r3 > r1, swapped)
	previous := swapped.Previous
	expect(t, string(previous.Value) == "red" && previous.ContentType == "text/plain", previous)
	expect(t, previous.Revision == r1 && previous.Version == 1, previous)

	// 4
	_, err = store.Put(ctx, &pb.PutRequest{Key: apple, Value: []byte("blue"), Conditions: ifRevision(r1)})
	refused(t, err, codes.Aborted, "CONDITION_FAILED",
		map[string]string{"current_revision": strconv.FormatUint(r3, 10), "outcome": "NOT_APPLIED"})

	// 5
	white := put(&pb.PutRequest{Key: leek, Value: []byte("white")})
	lastKey := put(&pb.PutRequest{Key: []byte("fruit/\xff")})
	banana := put(&pb.PutRequest{Key: []byte("fruit/banana"), Value: []byte("yellow")})
	expect(t, white.Created && lastKey.Created && banana.Created, banana)
	r5, r5Before := banana.Result.Revision, lastKey.Result.Revision

	// 6
	scan := must(store.Scan(ctx, &pb.ScanRequest{Range: fruit}))
	var found []*pb.Entry
	for {
		batch, err := scan.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		expect(t, must(batch, err).StoreRevision >= r5, batch)
		found = append(found, batch.Entries...)
	}
	wanted := []*pb.Entry{
		{Key: apple, Value: []byte("green"), Revision: r3, CreateRevision: r1, Version: 2},
		{Key: []byte("fruit/banana"), Value: []byte("yellow"), Revision: r5, CreateRevision: r5, Version: 1},
		{Key: []byte("fruit/\xff"), Revision: r5Before, CreateRevision: r5Before, Version: 1},
	}
	expect(t, len(found) == len(wanted), found)
	for i, entry := range found {
		expect(t, bytes.Equal(entry.Key, wanted[i].Key) && bytes.Equal(entry.Value, wanted[i].Value), entry)
		expect(t, entry.Revision == wanted[i].Revision && entry.CreateRevision == wanted[i].CreateRevision, entry)
		expect(t, entry.Version == wanted[i].Version, entry)
	}

	// 7
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	watch := must(store.Watch(watching, &pb.WatchRequest{Range: fruit, StartRevision: r5}))
	expectChange(t, nextChange(t, watch), pb.EventKind_EVENT_KIND_PUT, "fruit/banana", "yellow", r5)

	// 8
	gold := put(&pb.PutRequest{Key: apple, Value: []byte("gold")})
	purple := put(&pb.PutRequest{Key: leek, Value: []byte("purple")})
	expect(t, !gold.Created && gold.Version == 3 && !purple.Created && purple.Version == 2, gold)
	r8 := gold.Result.Revision

	// 9
	removed := must(store.Delete(ctx, &pb.DeleteRequest{Key: apple, ReturnPrevious: true}))
	r9 := removed.Result.Revision
	expect(t, r9 > r8, removed)
	previous = removed.Previous
	expect(t, string(previous.Value) == "gold" && previous.Revision == r8, previous)
	expect(t, previous.CreateRevision == r1 && previous.Version == 3, previous)

	// 10
	expectChange(t, nextChange(t, watch), pb.EventKind_EVENT_KIND_PUT, "fruit/apple", "gold", r8)
	expectChange(t, nextChange(t, watch), pb.EventKind_EVENT_KIND_DELETE, "fruit/apple", "", r9)
	stopWatching()

	// 11
	_, err = store.Get(ctx, &pb.GetRequest{Key: apple})
	metadata := refused(t, err, codes.NotFound, "KEY_NOT_FOUND", nil)
	storeRevision := must(strconv.ParseUint(metadata["store_revision"], 10, 64))
	expect(t, storeRevision >= r9, metadata)
}

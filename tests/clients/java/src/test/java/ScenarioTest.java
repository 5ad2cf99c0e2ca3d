import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import tandem.v1.Condition;
import tandem.v1.DeleteRequest;
import tandem.v1.Durability;
import tandem.v1.Entry;
import tandem.v1.Event;
import tandem.v1.EventKind;
import tandem.v1.GetRequest;
import tandem.v1.KeyRange;
import tandem.v1.KvServiceGrpc;
import tandem.v1.KvServiceGrpc.KvServiceBlockingStub;
import tandem.v1.PutRequest;
import tandem.v1.ScanRequest;
import tandem.v1.WatchRequest;
import tandem.v1.WatchResponse;

/** The scenario of ../README.md by the Java client. */
class ScenarioTest {
    private static final long DEADLINE_S = 30;

    @Test
    void everyStepAnswersAsWritten() throws Exception {
        ManagedChannel channel =
                Grpc.newChannelBuilder(System.getenv("TANDEM_GRPC_ADDRESS"), InsecureChannelCredentials.create())
                        .build();
        try {
            scenario(KvServiceGrpc.newBlockingStub(channel).withDeadlineAfter(DEADLINE_S, TimeUnit.SECONDS));
        } finally {
            assertTrue(channel.shutdownNow().awaitTermination(DEADLINE_S, TimeUnit.SECONDS));
        }
    }

    private static void scenario(KvServiceBlockingStub store) throws Exception {
        ByteString apple = bytes("fruit/apple");
        ByteString leek = bytes("vegetable/leek");
        ByteString lastKey = bytes("fruit/").concat(ByteString.copyFrom(new byte[] {(byte) 0xFF}));
        KeyRange fruit = KeyRange.newBuilder().setPrefix(bytes("fruit/")).build();

        // 1
        var first = store.put(put(apple, "red").setContentType("text/plain").build());
        long r1 = first.getResult().getRevision();
        assertTrue(first.getCreated() && first.getVersion() == 1 && r1 > 0, first::toString);
        assertEquals(Durability.DURABILITY_FSYNCED, first.getResult().getDurability());

        // 2
        var ifAbsent = put(apple, "blue").addConditions(Condition.newBuilder().setExists(false)).build();
        refused(() -> store.put(ifAbsent), Status.Code.ALREADY_EXISTS, "KEY_EXISTS",
                Map.of("current_revision", Long.toString(r1), "outcome", "NOT_APPLIED"));

        // 3
        var atR1 = Condition.newBuilder().setRevision(r1).build();
        var swapped = store.put(put(apple, "green").addConditions(atR1).setReturnPrevious(true).build());
        long r3 = swapped.getResult().getRevision();
        assertTrue(!swapped.getCreated() && swapped.getVersion() == 2 && r3 > r1, swapped::toString);
        Entry previous = swapped.getPrevious();
        assertEquals(bytes("red"), previous.getValue());
        assertEquals("text/plain", previous.getContentType());
        assertTrue(previous.getRevision() == r1 && previous.getVersion() == 1, previous::toString);

        // 4
        var stale = put(apple, "blue").addConditions(atR1).build();
        refused(() -> store.put(stale), Status.Code.ABORTED, "CONDITION_FAILED",
                Map.of("current_revision", Long.toString(r3), "outcome", "NOT_APPLIED"));

        // 5
        var white = store.put(put(leek, "white").build());
        var last = store.put(put(lastKey, "").build());
        var banana = store.put(put(bytes("fruit/banana"), "yellow").build());
        assertTrue(white.getCreated() && last.getCreated() && banana.getCreated());
        long r5 = banana.getResult().getRevision();
        long r5Before = last.getResult().getRevision();

        // 6
        List<Entry> found = new ArrayList<>();
        store.scan(ScanRequest.newBuilder().setRange(fruit).build()).forEachRemaining(batch -> {
            assertTrue(batch.getStoreRevision() >= r5, batch::toString);
            found.addAll(batch.getEntriesList());
        });
        assertEquals(3, found.size(), found::toString);
        expectEntry(found.get(0), apple, "green", r3, r1, 2);
        expectEntry(found.get(1), bytes("fruit/banana"), "yellow", r5, r5, 1);
        expectEntry(found.get(2), lastKey, "", r5Before, r5Before, 1);

        // 7
        var watching = Context.current().withCancellation();
        Iterator<WatchResponse> watch =
                watching.call(() -> store.watch(WatchRequest.newBuilder().setRange(fruit).setStartRevision(r5).build()));
        expectNextChange(watch, EventKind.EVENT_KIND_PUT, bytes("fruit/banana"), "yellow", r5);

        // 8
        var gold = store.put(put(apple, "gold").build());
        var purple = store.put(put(leek, "purple").build());
        assertTrue(!gold.getCreated() && gold.getVersion() == 3, gold::toString);
        assertTrue(!purple.getCreated() && purple.getVersion() == 2, purple::toString);
        long r8 = gold.getResult().getRevision();

        // 9
        var removed = store.delete(DeleteRequest.newBuilder().setKey(apple).setReturnPrevious(true).build());
        long r9 = removed.getResult().getRevision();
        assertTrue(r9 > r8, removed::toString);
        expectEntry(removed.getPrevious(), apple, "gold", r8, r1, 3);

        // 10
        expectNextChange(watch, EventKind.EVENT_KIND_PUT, apple, "gold", r8);
        expectNextChange(watch, EventKind.EVENT_KIND_DELETE, apple, "", r9);
        watching.cancel(null);

        // 11
        var metadata = refused(() -> store.get(GetRequest.newBuilder().setKey(apple).build()),
                Status.Code.NOT_FOUND, "KEY_NOT_FOUND", Map.of());
        assertTrue(Long.parseLong(metadata.get("store_revision")) >= r9, metadata::toString);
    }

    private static ByteString bytes(String text) {
        return ByteString.copyFromUtf8(text);
    }

    private static PutRequest.Builder put(ByteString key, String value) {
        return PutRequest.newBuilder().setKey(key).setValue(bytes(value));
    }

    /** Checks a refusal whole; hands back its metadata. */
    private static Map<String, String> refused(
            Executable call, Status.Code code, String reason, Map<String, String> metadata)
            throws InvalidProtocolBufferException {
        var refusal = assertThrows(StatusRuntimeException.class, call);
        assertEquals(code, refusal.getStatus().getCode());
        var status = StatusProto.fromThrowable(refusal);
        assertTrue(status.getMessage().startsWith(reason + ": "), status.getMessage());
        List<ErrorInfo> infos = new ArrayList<>();
        for (Any detail : status.getDetailsList()) {
            if (detail.is(ErrorInfo.class)) {
                infos.add(detail.unpack(ErrorInfo.class));
            }
        }
        assertEquals(1, infos.size(), status::toString);
        ErrorInfo info = infos.get(0);
        assertEquals(reason, info.getReason());
        assertEquals("tandem", info.getDomain());
        assertTrue(info.getMetadataMap().entrySet().containsAll(metadata.entrySet()), info::toString);
        return info.getMetadataMap();
    }

    private static void expectEntry(
            Entry entry, ByteString key, String value, long revision, long createRevision, long version) {
        assertEquals(key, entry.getKey());
        assertEquals(bytes(value), entry.getValue());
        assertEquals(revision, entry.getRevision());
        assertEquals(createRevision, entry.getCreateRevision());
        assertEquals(version, entry.getVersion());
    }

    /** Reads a watch up to its next change, which is alone in its message. */
    private static void expectNextChange(
            Iterator<WatchResponse> watch, EventKind kind, ByteString key, String value, long revision) {
        WatchResponse message = watch.next();
        while (message.getEventsCount() == 0) {
            message = watch.next();
        }
        assertEquals(1, message.getEventsCount(), message::toString);
        Event event = message.getEvents(0);
        assertEquals(kind, event.getKind());
        assertEquals(key, event.getEntry().getKey());
        assertEquals(bytes(value), event.getEntry().getValue());
        assertEquals(revision, event.getEntry().getRevision());
        assertEquals(revision, message.getRevision());
    }
}

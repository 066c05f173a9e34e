package lakehouse;

import io.delta.storage.HadoopFileSystemLogStore;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.util.Arrays;
import java.util.Iterator;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FSDataOutputStreamBuilder;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.s3a.AWSServiceIOException;
import org.apache.hadoop.fs.s3a.RemoteFileChangedException;

/**
 * Delta's log on S3 for any number of writers: a commit is put on the condition that there is none of its number
 * (If-None-Match), and S3 decides who was first. Delta's own log stores for S3 know one driver, or need a DynamoDB table
 * (delta-io/delta#3596). Needs Hadoop's S3A of 3.4.2 or later; another file system refuses the option, and nothing is
 * written.
 */
public class ConditionalPutLogStore extends HadoopFileSystemLogStore {
    private static final int TRIES = 6;
    private static final int CONFLICT = 409;

    public ConditionalPutLogStore(Configuration configuration) {
        super(configuration);
    }

    @Override
    public void write(Path path, Iterator<String> actions, Boolean overwrite, Configuration configuration)
            throws IOException {
        FileSystem files = path.getFileSystem(configuration);
        ByteArrayOutputStream text = new ByteArrayOutputStream();
        while (actions.hasNext()) {
            text.write((actions.next() + "\n").getBytes(StandardCharsets.UTF_8));
        }
        byte[] commit = text.toByteArray();
        for (int left = TRIES - 1; ; left--) {
            try {
                put(files, path, commit, overwrite);
                return;
            } catch (IOException e) {
                // An answer may get lost after S3 has taken the commit; tried again, it is refused as another's. A
                // commit has an identifier of its own, so equal bytes are ours.
                if (!overwrite && holds(files, path, commit)) {
                    return;
                }
                if (e instanceof RemoteFileChangedException) {
                    FileAlreadyExistsException first = new FileAlreadyExistsException(path.toString());
                    first.initCause(e);
                    throw first;
                }
                // Two puts of one name at the same moment: S3 asks to repeat.
                boolean again = e instanceof AWSServiceIOException && ((AWSServiceIOException) e).statusCode() == CONFLICT;
                if (!again || left == 0) {
                    throw e;
                }
            }
        }
    }

    /** S3 shows an object when it is whole. */
    @Override
    public Boolean isPartialWriteVisible(Path path, Configuration configuration) {
        return false;
    }

    private static void put(FileSystem files, Path path, byte[] content, boolean overwrite) throws IOException {
        FSDataOutputStreamBuilder<?, ?> builder = files.createFile(path).overwrite(true).recursive();
        builder.opt("fs.s3a.create.performance", true); // no look at the path and its parents before
        if (!overwrite) {
            builder.must("fs.option.create.conditional.overwrite", true);
        }
        FSDataOutputStream out = (FSDataOutputStream) builder.build();
        try {
            out.write(content);
        } catch (IOException | RuntimeException e) {
            out.abort(); // `close` would put what was written so far
            throw e;
        }
        out.close();
    }

    private static boolean holds(FileSystem files, Path path, byte[] content) {
        try (FSDataInputStream in = files.open(path)) {
            return Arrays.equals(in.readAllBytes(), content);
        } catch (IOException e) {
            return false;
        }
    }
}
